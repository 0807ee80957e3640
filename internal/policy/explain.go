package policy

import "strings"

// explain fills in the words of a denial, and what would allow it.
func (s *side) explain(q *question, d *Decision) {
	d.Reason = q.sentence(d.ShadowDenied) + ": "
	switch d.Rule {
	case ByCapability:
		d.Nearest = switchOn(q.pair)
		d.Reason += isOff(q.pair)
		return
	case ByAllowList:
		d.Reason += "no rule of " + q.pair.String() + " allows it"
	default:
		d.Nearest = "telford policy rm " + d.Rule
		d.Reason += "rule " + d.Rule + " of " + q.pair.String() + " denies it, whatever else allows it; to take it away: " + d.Nearest
		return
	}
	if near, same := s.nearest(q); near != nil {
		d.Nearest = near.ID
		if same {
			d.Reason += "; the nearest, " + near.ID + ", allows it but is only counted; to enforce it: telford policy shadow off " + near.ID
			return
		}
		d.Reason += "; the nearest, " + near.ID + ", allows " + object(near) + " instead; to allow this too: " + Command(q.rule())
		return
	}
	d.Nearest = Command(q.rule())
	d.Reason += "; to allow it: " + d.Nearest
}

// switchOn is the command line that switches an action on.
func switchOn(p Pair) string {
	return "telford policy capability " + p.Service + " " + string(p.Action) + " on"
}

func isOff(p Pair) string {
	return "the capability " + string(p.Action) + " of " + p.Service + " is off; to switch it on: " + switchOn(p)
}

// sentence says what was wanted.
func (q *question) sentence(shadow bool) string {
	may := " may not "
	if shadow {
		may = " would not be allowed to "
	}
	service, peer := name(q.pair.Service), name(q.peer)
	switch q.pair.Action {
	case Call:
		return "service " + service + may + "call " + q.target + " of " + peer
	case Handle:
		return "service " + peer + may + "call " + q.target + " of " + service
	case RunWorkflow:
		return "service " + service + may + "run workflow " + q.target + " of " + peer
	case HandleWorkflow:
		return "service " + peer + may + "run workflow " + q.target + " of " + service
	case Publish:
		return "service " + service + may + "publish " + q.target
	default:
		return "service " + service + may + "subscribe to " + q.target
	}
}

// rule is the narrowest that would allow what is asked for.
func (q *question) rule() Rule {
	return Rule{Service: q.pair.Service, Action: q.pair.Action, Effect: Allow, Peer: q.peer, Target: q.target}
}

// object is what a rule is about, in words.
func object(r *Rule) string {
	target := r.Target
	if target == "" {
		target = "everything"
	}
	if r.Peer == "" || !r.Action.bilateral() {
		return target
	}
	if r.Action == Call || r.Action == RunWorkflow {
		return target + " of " + r.Peer
	}
	return target + " to " + r.Peer
}

// Command is the command line that makes a rule.
func Command(r Rule) string {
	var b strings.Builder
	b.WriteString("telford policy ")
	b.WriteString(string(r.Effect))
	for _, word := range []string{r.Service, string(r.Action)} {
		b.WriteString(" " + shell(word))
	}
	if r.Peer != "" {
		b.WriteString(" --peer " + shell(r.Peer))
	}
	if r.Target != "" {
		b.WriteString(" --target " + shell(r.Target))
	}
	if r.Shadow {
		b.WriteString(" --shadow")
	}
	return b.String()
}

// shell quotes what a shell would read as something else.
func shell(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-/:", c)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// nearest returns the rule to allow that comes closest: of those for the same peer the
// one whose target takes the fewest changes of single characters to become what is asked
// for, the first by id where several do. same: it would allow it if it were enforced.
//
// Rules for other peers do not count. Who has only the share of a service does not know
// them, and would have to name another rule than the runtime does.
func (s *side) nearest(q *question) (near *Rule, same bool) {
	best := 0
	for i := range s.allow {
		r := &s.allow[i]
		if !r.Action.ofEvents() && !MatchGlob(r.Peer, q.peer) {
			continue
		}
		away := 0
		if !q.allowedBy(r) {
			away = 1 + distance(r.Target, q.target)
			if at := strings.LastIndexByte(q.target, '/'); at >= 0 {
				away = min(away, 1+distance(r.Target, q.target[at+1:]))
			}
		}
		if near == nil || away < best {
			near, best = r, away
		}
	}
	return near, near != nil && best == 0
}

// distance is how many single characters have to be changed, put in or taken out to make
// one text of the other.
func distance(a, b string) int {
	const most = MaxTarget
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
