package match

import (
	"strings"

	"telford.dev/telford/internal/catalog"
)

// DefaultRealm is the realm of a service that names none.
const DefaultRealm = "global"

// RealmOf returns the realm that a declaration is in.
func RealmOf(d *catalog.Declaration) string {
	if d.Realm == "" {
		return DefaultRealm
	}
	return d.Realm
}

// Realm matches a realm against a pattern in which * stands for any run of characters,
// also none. The empty pattern matches every realm.
func Realm(pattern, realm string) bool {
	if pattern == "" {
		return true
	}
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == realm
	}
	if !strings.HasPrefix(realm, first) {
		return false
	}
	realm = realm[len(first):]
	for {
		part, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(realm, part)
		}
		// The earliest place is as good as any: what follows is a * again.
		i := strings.Index(realm, part)
		if i < 0 {
			return false
		}
		realm, rest = realm[i+len(part):], more
	}
}
