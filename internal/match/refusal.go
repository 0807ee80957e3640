package match

import (
	"fmt"
	"slices"
	"strings"

	"telford.dev/telford/internal/errs"
)

// Refused reports whether a choice that failed did so because of the contract: somebody
// is ready, and nobody who is has the contract of the caller.
func Refused(w Wish, speakers []Speaker) bool {
	if w.Contract == "" || w.Lenient {
		return false
	}
	ready := false
	for i := range speakers {
		if speakers[i].Unready == "" {
			if speakers[i].Contract == w.Contract {
				return false
			}
			ready = true
		}
	}
	return ready
}

// The most that a Refusal lists.
const (
	mostContracts = 5
	mostIDs       = 3
	mostName      = 40 // bytes of an id or a version
)

// Refusal is the error for a caller whose contract nobody speaks now: no_instance with
// the reason contract. It says which contracts there are and who speaks them; speakers
// are all instances of the method that the call could mean otherwise.
func Refusal(service, method, want string, speakers []Speaker) *errs.Error {
	shapes := Shapes(speakers, func(s Speaker) Speaker { return s })
	lines := make([]string, 0, mostContracts)
	for i := range shapes {
		if i == mostContracts {
			lines = append(lines, fmt.Sprintf("and %d more", len(shapes)-i))
			break
		}
		lines = append(lines, describe(&shapes[i]))
	}
	e := errs.New(errs.NoInstance, "no running instance of service %q speaks contract %s of the caller for method %q; there are %s; "+
		"start an instance with the caller's types, build the caller with the types of one of these, or call without a contract to be given to the newest version",
		Clip(service), short(want), Clip(method), strings.Join(lines, ", ")).Unstarted()
	e.Meta = map[string]string{
		errs.MetaReason: errs.ReasonContract, "service": Clip(service), "method": Clip(method), "contract": Clip(want),
	}
	return e
}

// describe says who speaks a contract.
func describe(s *Shape[Speaker]) string {
	var versions, ids []string
	for _, m := range s.Members {
		if v := clip(m.Version, mostName); v != "" && !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
		id := clip(m.ID, mostName)
		if m.Unready != "" {
			id += " (" + m.Unready + ")"
		}
		ids = append(ids, id)
	}
	slices.SortFunc(versions, func(a, b string) int { return CompareVersions(b, a) })
	version := "no version"
	if len(versions) > 0 {
		version = "version " + list(versions)
	}
	count := "1 instance"
	if n := len(s.Members); n > 1 {
		count = fmt.Sprintf("%d instances", n)
	}
	return fmt.Sprintf("%s (%s, %s: %s)", short(s.Contract), version, count, list(ids))
}

func list(names []string) string {
	if len(names) <= mostIDs {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:mostIDs], ", ") + fmt.Sprintf(" and %d more", len(names)-mostIDs)
}

// short is as much of a contract as a reader compares.
func short(contract string) string {
	const most = 19 // the type and 16 digits
	switch {
	case contract == "":
		return "no contract"
	case len(contract) > most:
		return strings.ToValidUTF8(contract[:most], "") + "…"
	}
	return contract
}

// Clip shortens a name that came from outside, for a message.
func Clip(s string) string { return clip(s, 128) }

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
