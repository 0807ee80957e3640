package policy

import "slices"

// For returns what a service has to know of the policy: its own rules, those of others
// that are about it, and which actions of others are off or allow-lists. What is decided
// by it about calls in which the service takes part is what the whole would decide.
func (s *Set) For(service string) Set {
	if s == nil {
		return Set{}
	}
	var out Set
	kept := make(map[Pair]marks)
	all := make(map[Pair]marks)
	var order []Pair
	for _, r := range s.Rules {
		p := Pair{r.Service, r.Action}
		about := r.Service == service || r.Action.bilateral() && MatchGlob(r.Peer, service)
		if about {
			out.Rules = append(out.Rules, r)
		}
		if r.Effect != Allow || r.Service == service || !r.Action.bilateral() {
			continue
		}
		if _, known := all[p]; !known {
			order = append(order, p)
		}
		all[p] = all[p].with(r.Shadow)
		if about {
			kept[p] = kept[p].with(r.Shadow)
		}
	}
	out.Off = concerning(s.Off, service)
	out.Restricted = concerning(s.Restricted, service)
	out.Shadowed = concerning(s.Shadowed, service)
	restricted, shadowed := out.Restricted, out.Shadowed
	for _, p := range order {
		if all[p].enforced && !kept[p].enforced && !slices.Contains(restricted, p) {
			out.Restricted = append(out.Restricted, p)
		}
		if all[p].shadow && !kept[p].shadow && !slices.Contains(shadowed, p) {
			out.Shadowed = append(out.Shadowed, p)
		}
	}
	return out
}

// marks say which sorts of rules to allow a pair has.
type marks struct{ enforced, shadow bool }

func (m marks) with(shadow bool) marks {
	if shadow {
		m.shadow = true
	} else {
		m.enforced = true
	}
	return m
}

// concerning returns the pairs that matter to a service: its own, and those of others
// in what two services do.
func concerning(pairs []Pair, service string) []Pair {
	var out []Pair
	for _, p := range pairs {
		if p.Service == service || p.Action.bilateral() {
			out = append(out, p)
		}
	}
	return out
}
