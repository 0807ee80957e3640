package policy

import (
	"fmt"
	"slices"

	"telford.dev/telford/internal/catalog"
)

// maxWarnings bounds what is spelled out of one declaration.
const maxWarnings = 256

// Warnings says what of a declaration will not have its full effect, one warning for
// each thing that is denied: what it depends on, methods that nobody may call because
// the service may not handle any, and capabilities it asks for that are off. What goes
// beyond 256 is only counted, in the last one.
func (x *Index) Warnings(d *catalog.Declaration) []catalog.DeclarationWarning {
	if x == nil || d == nil {
		return nil
	}
	w := warner{index: x}
	for _, c := range d.Capabilities {
		if a := Action(c); a.Known() && x.Off(d.Service, a) {
			w.off("capabilities", c, d.Service, a)
		}
	}
	if x.Off(d.Service, Handle) {
		for i := range d.Methods {
			w.off(string(Handle), d.Methods[i].Name, d.Service, Handle)
		}
	}
	for i := range d.Dependencies {
		w.dependency(d.Service, &d.Dependencies[i])
	}
	if more := w.found - len(w.list); more > 0 {
		w.list = append(w.list, catalog.DeclarationWarning{
			Declaration: "declaration", Value: d.Service, Side: catalog.SideDeclaration, Reason: fmt.Sprintf("%d more warnings are not spelled out", more),
		})
	}
	return w.list
}

type warner struct {
	index *Index
	list  []catalog.DeclarationWarning
	found int
}

func (w *warner) warn(declaration, value, side, reason string) {
	if w.found++; w.found <= maxWarnings {
		w.list = append(w.list, catalog.DeclarationWarning{Declaration: declaration, Value: value, Side: side, Reason: reason})
	}
}

func (w *warner) off(declaration, value, service string, a Action) {
	w.warn(declaration, value, SideCapability, isOff(Pair{service, a}))
}

func (w *warner) dependency(service string, p *catalog.Dependency) {
	switch p.Kind {
	case "event":
		if d := w.index.Publish(service, p.Target); !d.Allowed {
			w.warn(string(Publish), p.Target, d.Side, d.Reason)
		}
	case "rpc":
		w.pair(Call, Handle, service, p)
	case "workflow":
		w.pair(RunWorkflow, HandleWorkflow, service, p)
	}
}

// pair judges a dependency on what another service does. One that names nothing is on
// the whole service, and forbidden when nothing of it is allowed.
func (w *warner) pair(egress, acceptance Action, service string, p *catalog.Dependency) {
	names := p.Names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		d, denied := w.index.hopeless(egress, acceptance, service, p.Target, n)
		if !denied {
			continue
		}
		value := p.Target
		if n != "" {
			value += "/" + n
		}
		w.warn(string(egress), value, d.Side, d.Reason)
	}
}

// hopeless decides about something that is declared, not done: its name may be short for
// one that only the callee knows, or stand for all there is. It is denied when nothing
// that it can mean is allowed.
func (x *Index) hopeless(egress, acceptance Action, caller, callee, target string) (Decision, bool) {
	for _, q := range []question{
		{Pair{caller, egress}, callee, target, SideSelfEgress},
		{Pair{callee, acceptance}, caller, target, SidePeerAcceptance},
	} {
		s := x.pairs[q.pair]
		if s == nil || caller == Operator {
			continue
		}
		rule := s.verdict(&q, false)
		if rule == "" || !s.surely(&q, rule) {
			continue
		}
		if q.target == "" {
			q.target = "anything"
		}
		return s.denial(&q, rule), true
	}
	return Decision{}, false
}

// surely reports whether what denies the target denies everything that it can mean.
func (s *side) surely(q *question, rule string) bool {
	switch rule {
	case ByCapability:
		return true
	case ByAllowList:
		return !slices.ContainsFunc(s.allow, func(r Rule) bool {
			return !r.Shadow && MatchGlob(r.Peer, q.peer) && (q.target == "" || globsMeet(r.Target, "*/"+q.target))
		})
	}
	// A rule to deny has matched by name; one with no name has to be about everything.
	return q.target != "" || slices.ContainsFunc(s.deny, func(r Rule) bool {
		return !r.Shadow && MatchGlob(r.Peer, q.peer) && (r.Target == "" || r.Target == "*")
	})
}
