package policy

import "slices"

// Call decides whether a service may call a method of another: by its own egress rules
// and by the acceptance rules of the callee, which both have to allow it.
func (x *Index) Call(caller, callee, method string) Decision {
	return x.both(Call, Handle, caller, callee, method)
}

// Run decides whether a service may start a workflow of another, as Call does.
func (x *Index) Run(caller, callee, workflow string) Decision {
	return x.both(RunWorkflow, HandleWorkflow, caller, callee, workflow)
}

// Publish decides whether a service may publish an event.
func (x *Index) Publish(service, topic string) Decision {
	return x.decide(question{Pair{service, Publish}, "", topic, SideSelfEgress})
}

// Subscribe decides whether a service may subscribe with a pattern: a rule to allow has
// to contain all of it, and one to deny none.
func (x *Index) Subscribe(service, pattern string) Decision {
	return x.decide(question{Pair{service, HandleEvent}, "", pattern, SideSelfAcceptance})
}

// Visible returns which of the topics a service that subscribes with a pattern may know
// of: those that the pattern and the scope of the service have in common. Its scope is
// what it may handle or, where no rule says that, what it may publish. The topics may be
// patterns themselves.
func (x *Index) Visible(service, pattern string, topics ...string) []string {
	var scope *side
	if x != nil {
		scope = x.pairs[Pair{service, HandleEvent}]
		if !scope.says() {
			scope = x.pairs[Pair{service, Publish}]
		}
	}
	var out []string
	for _, t := range topics {
		if Intersects(pattern, t) && scope.shows(pattern, t) {
			out = append(out, t)
		}
	}
	return out
}

// says reports whether anything of s is enforced.
func (s *side) says() bool {
	return s != nil && (s.off || s.restricted || slices.ContainsFunc(s.deny, func(r Rule) bool { return !r.Shadow }))
}

// shows reports whether a topic that is subscribed to lies in the scope of s.
func (s *side) shows(pattern, topic string) bool {
	if s == nil {
		return true
	}
	if s.off {
		return false
	}
	for i := range s.deny {
		if !s.deny[i].Shadow && Contains(s.deny[i].Target, topic) {
			return false
		}
	}
	if !s.restricted {
		return true
	}
	for i := range s.allow {
		if !s.allow[i].Shadow && Intersects(s.allow[i].Target, pattern, topic) {
			return true
		}
	}
	return false
}

// question is one side of what is to be decided.
type question struct {
	pair         Pair
	peer, target string
	side         string
}

// both decides what two services do together. What both sides deny is reported of the
// caller's.
func (x *Index) both(egress, acceptance Action, caller, callee, target string) Decision {
	if x == nil || caller == Operator {
		return Decision{Allowed: true}
	}
	out := x.decide(question{Pair{caller, egress}, callee, target, SideSelfEgress})
	if !out.Allowed {
		return out
	}
	in := x.decide(question{Pair{callee, acceptance}, caller, target, SidePeerAcceptance})
	if !in.Allowed || !out.ShadowDenied {
		return in
	}
	return out
}

func (x *Index) decide(q question) Decision {
	if x == nil || q.pair.Service == Operator {
		return Decision{Allowed: true}
	}
	s := x.pairs[q.pair]
	if s == nil {
		return Decision{Allowed: true}
	}
	if rule := s.verdict(&q, false); rule != "" {
		return s.denial(&q, rule)
	}
	d := Decision{Allowed: true}
	if rule := s.verdict(&q, true); rule != "" {
		d.ShadowDenied, d.Rule, d.Side, d.ShadowBy = true, rule, q.side, q.pair
		s.explain(&q, &d)
	}
	return d
}

// denial is the decision that a rule has brought about.
func (s *side) denial(q *question, rule string) Decision {
	d := Decision{Rule: rule, By: q.pair, Side: q.side}
	if rule == ByCapability {
		d.Side = SideCapability
	}
	s.explain(q, &d)
	return d
}

// verdict returns what denies it, "" if nothing does. With shadow, all rules count as
// enforced.
func (s *side) verdict(q *question, shadow bool) string {
	if s.off {
		return ByCapability
	}
	for i := range s.deny {
		if r := &s.deny[i]; (shadow || !r.Shadow) && q.deniedBy(r) {
			return r.ID
		}
	}
	if !s.restricted && (!shadow || !s.shadowed) {
		return ""
	}
	for i := range s.allow {
		if r := &s.allow[i]; (shadow || !r.Shadow) && q.allowedBy(r) {
			return ""
		}
	}
	return ByAllowList
}

func (q *question) allowedBy(r *Rule) bool {
	if r.Action.ofEvents() {
		return Contains(r.Target, q.target)
	}
	return MatchGlob(r.Peer, q.peer) && matchMethod(r.Target, q.target)
}

// deniedBy reports whether a rule to deny concerns any of what is asked for: a pattern that is
// subscribed to is denied when it could bring what the rule names.
func (q *question) deniedBy(r *Rule) bool {
	if r.Action.ofEvents() {
		return Intersects(r.Target, q.target)
	}
	return MatchGlob(r.Peer, q.peer) && matchMethod(r.Target, q.target)
}

// Permits is Call for those who do not have to explain the answer.
func (x *Index) Permits(caller, callee, method string) bool {
	if x == nil || caller == Operator {
		return true
	}
	return x.passes(&question{Pair{caller, Call}, callee, method, ""}) && x.passes(&question{Pair{callee, Handle}, caller, method, ""})
}

func (x *Index) passes(q *question) bool {
	s := x.pairs[q.pair]
	return s == nil || q.pair.Service == Operator || s.verdict(q, false) == ""
}
