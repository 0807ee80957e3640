package sessions

import (
	"testing"

	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/router"
)

var (
	_ Registry  = (*registry.Registry)(nil)
	_ Router    = (*router.Router)(nil)
	_ Authority = (*identity.Authority)(nil)
	_           = ident.Identity{}
)

// Every combination of what can stand against a Hello has exactly the outcome that the
// rule of who holds an instance id asks for.
func TestDecide(t *testing.T) {
	t.Parallel()
	bools := []bool{false, true}
	for _, token := range bools {
		for _, fenced := range bools {
			for _, exists := range bools {
				for _, matches := range bools {
					for _, precedes := range bools {
						for _, connected := range bools {
							for _, lapsed := range bools {
								c := claim{token, fenced, exists, matches, precedes, connected, lapsed}
								got := decide(c)
								var want verdict
								switch {
								case token && fenced:
									want = refuse // for good
								case !exists:
									want = begin
								case token && matches && lapsed:
									want = renew
								case token && matches && connected:
									want = handover
								case token && matches:
									want = resume
								case !token || precedes:
									want = replace
								default:
									want = refuse // somebody newer has it
								}
								if got != want {
									t.Errorf("%+v: %s, want %s", c, got, want)
								}
							}
						}
					}
				}
			}
		}
	}
}

func TestFencedTokensAreBounded(t *testing.T) {
	t.Parallel()
	s := &Server{fenced: make(map[digest]struct{})}
	at := func(i int) digest { return digest{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range rememberFenced + 10 {
		s.rememberFenced(at(i))
		s.rememberFenced(at(i))
	}
	if len(s.fenced) != rememberFenced || len(s.fencedLine) != rememberFenced {
		t.Errorf("%d and %d are remembered", len(s.fenced), len(s.fencedLine))
	}
	if _, ok := s.fenced[at(9)]; ok {
		t.Error("the oldest is remembered")
	}
	if _, ok := s.fenced[at(10)]; !ok {
		t.Error("one too many was forgotten")
	}
}
