// Package match owns the rules that narrow the instances of a service to those that one
// call may go to: realm, version, contract, and which method a name means. They are pure
// functions, the same for the SDK, which picks among what its watch has told it, and for
// the runtime, which picks among what is registered. It never picks, never looks at load
// and starts no goroutines.
package match

import (
	"slices"

	"telford.dev/telford/internal/catalog"
)

// Version keeps those of exactly the wanted version; where none of them is ready, those
// that say they are compatible with it, as soon as one of these is. The empty version
// keeps all. The given slice is not changed.
func Version[E any](all []E, of func(E) *catalog.Declaration, want string, ready func(E) bool) []E {
	if want == "" {
		return all
	}
	exact := keep(all, func(e E) bool { return ExactVersion(of(e), want) })
	if slices.ContainsFunc(exact, ready) {
		return exact
	}
	compatible := keep(all, func(e E) bool { return CompatibleVersion(of(e), want) })
	if len(exact) == 0 || slices.ContainsFunc(compatible, ready) {
		return compatible
	}
	return exact
}

// ExactVersion reports whether a declaration is of the wanted version; every one is when
// none is wanted.
func ExactVersion(d *catalog.Declaration, want string) bool { return want == "" || d.Version == want }

// CompatibleVersion reports whether a declaration says that it stands in for the wanted
// version.
func CompatibleVersion(d *catalog.Declaration, want string) bool {
	return slices.Contains(d.CompatibleVersions, want)
}

func keep[E any](all []E, ok func(E) bool) []E {
	kept := make([]E, 0, len(all))
	for _, e := range all {
		if ok(e) {
			kept = append(kept, e)
		}
	}
	return kept
}
