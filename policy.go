package telford

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/internal/transport"
)

// AllowedCallers names the services that may call the method; no other may, through
// whichever door it comes. It narrows what the policy of the operators allows and never
// widens it. At least one name is needed, and what is given twice adds up.
func AllowedCallers(services ...string) HandleOption {
	return handleOption(func(o *handleSettings) {
		if len(services) == 0 {
			o.bad.addf("AllowedCallers: no service is named; leave the option out to let everybody call")
		}
		for _, s := range services {
			if !catalog.ValidName(s) {
				o.bad.addf("AllowedCallers: %q cannot name a service; want 1 to %d of a-z, 0-9, '.', '_', '-'", s, catalog.MaxName)
				continue
			}
			if !slices.Contains(o.callers, s) {
				o.callers = append(o.callers, s)
			}
		}
		if len(o.callers) > catalog.MaxCallers {
			o.bad.addf("AllowedCallers: %d services are over the limit of %d; a rule of the operators takes patterns", len(o.callers), catalog.MaxCallers)
		}
	})
}

// FailOnPolicyViolation makes Start fail when policy forbids anything that the service
// declares: a method it serves, a service it uses, an event it publishes. Disconnected
// then has a reason that begins with DisconnectPolicy and names the declaration and its
// value. Without it the service starts, and what is forbidden is denied when it is
// attempted.
func FailOnPolicyViolation() Option {
	return serviceOption(func(o *options, _ *problems) { o.failOnViolation = true })
}

// PolicyViolation says that policy forbids something that this service declares or has
// attempted.
type PolicyViolation struct {
	// Declaration is what was declared or attempted: "rpc.call", "rpc.handle",
	// "event.publish", "workflow.run", "capabilities".
	Declaration string
	// Value is what it was about: "payments/charge", a topic, a capability.
	Value string
	// Side is whose rule forbids it: "capability", "self_egress", "self_acceptance" or
	// "peer_acceptance".
	Side   string
	Reason string
}

// OnPolicyViolation has f called for what policy forbids of the declarations at the
// registration, again for what a change of the policy newly forbids, and for each call of
// this service that is denied; see OnConnected.
func (s *Service) OnPolicyViolation(f func(PolicyViolation)) {
	onEvent(s.events, &s.events.violation, f)
}

// PolicyEvaluation is what the policy says about this service as of now.
type PolicyEvaluation struct {
	Capabilities []PolicyCapability
	// Egress are the rules about what this service calls, publishes and runs, Acceptance
	// those about who may call it and what it handles.
	Egress, Acceptance []PolicyRule
	// Warnings are what of its declarations is forbidden.
	Warnings []Warning
}

// PolicyCapability is an action of this service that operators may switch off.
type PolicyCapability struct {
	Name string
	On   bool
}

// PolicyRule allows or denies one action of this service.
type PolicyRule struct {
	ID string
	// Action is "rpc.call", "rpc.handle", "event.publish", "event.handle", "workflow.run" or
	// "workflow.handle".
	Action string
	// Effect is "allow" or "deny".
	Effect string
	// Peer is a pattern of the service at the other end, Target one of the method, the
	// workflow or the topic; empty means any.
	Peer, Target string
	// Shadow: what it would deny is only counted.
	Shadow bool
}

// PolicyEvaluation returns what the policy says about this service; it is empty until the
// runtime has said it for the first time, and stays what it was while the runtime is
// away.
func (s *Service) PolicyEvaluation() PolicyEvaluation {
	s.policy.mu.Lock()
	set, warnings := s.policy.set, slices.Collect(maps.Keys(s.policy.told))
	s.policy.mu.Unlock()
	var out PolicyEvaluation
	if set == nil {
		return out
	}
	for _, a := range policy.Actions() {
		out.Capabilities = append(out.Capabilities, PolicyCapability{
			Name: string(a), On: !slices.Contains(set.Off, policy.Pair{Service: s.name, Action: a}),
		})
	}
	for _, r := range set.Rules {
		if r.Service != s.name {
			continue
		}
		rule := PolicyRule{ID: r.ID, Action: string(r.Action), Effect: string(r.Effect), Peer: r.Peer, Target: r.Target, Shadow: r.Shadow}
		switch r.Action {
		case policy.Call, policy.Publish, policy.RunWorkflow:
			out.Egress = append(out.Egress, rule)
		default:
			out.Acceptance = append(out.Acceptance, rule)
		}
	}
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, Warning(w))
	}
	slices.SortFunc(out.Warnings, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Declaration, b.Declaration), cmp.Compare(a.Value, b.Value), cmp.Compare(a.Side, b.Side))
	})
	return out
}

// policyState is what the runtime has last said about the policy.
type policyState struct {
	mu  sync.Mutex
	set *policy.Set // nil before the first time
	// told are the warnings that hold, each of which was told once.
	told map[catalog.DeclarationWarning]struct{}
}

// obey puts rules in force. It runs on the reader of the session and does not wait.
func (s *Service) obey(r *rulespb.Rules) {
	index := policy.Compile(&r.Policy)
	s.guard.Set(index)
	s.view.SetPolicy(s.name, index)
	s.table.SetLimits(r.Limits)
	if v := s.invoker.Load(); v != nil {
		v.SetTransports(transport.Compile(r.Transports))
	}
	s.policy.mu.Lock()
	defer s.policy.mu.Unlock()
	s.policy.set = &r.Policy
}

// warned passes on what a registration has earned.
func (s *Service) warned(list []catalog.DeclarationWarning) {
	for _, w := range list {
		if w.Side != catalog.SideDeclaration && !s.policy.note(w) {
			continue
		}
		s.warn(w)
	}
}

// forbidden passes on what of the declarations policy forbids as of now, as far as it is
// new.
func (s *Service) forbidden(list []catalog.DeclarationWarning) {
	for _, w := range s.policy.replace(list) {
		s.warn(w)
	}
}

func (s *Service) warn(w catalog.DeclarationWarning) {
	s.log.Warn("a declaration will not have its full effect", "declaration", w.Declaration, "value", w.Value, "side", w.Side, "reason", w.Reason)
	emit(s.events, &s.events.warning, Warning(w))
	if w.Side != catalog.SideDeclaration {
		emit(s.events, &s.events.violation, PolicyViolation(w))
	}
}

// deniedCall passes on that a call of this service was denied.
func (s *Service) deniedCall(service, method string, denial *errs.Error) {
	emit(s.events, &s.events.violation, PolicyViolation{
		Declaration: string(policy.Call), Value: service + "/" + method, Side: denial.Meta["side"], Reason: denial.Message,
	})
}

// note reports whether w was not told yet.
func (p *policyState) note(w catalog.DeclarationWarning) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.told[w]; known {
		return false
	}
	if p.told == nil {
		p.told = make(map[catalog.DeclarationWarning]struct{})
	}
	p.told[w] = struct{}{}
	return true
}

// replace takes the list in the place of all that was told, and returns what is new.
func (p *policyState) replace(list []catalog.DeclarationWarning) []catalog.DeclarationWarning {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fresh []catalog.DeclarationWarning
	next := make(map[catalog.DeclarationWarning]struct{}, len(list))
	for _, w := range list {
		if w.Side == catalog.SideDeclaration {
			continue
		}
		_, known := p.told[w]
		if _, twice := next[w]; !known && !twice {
			fresh = append(fresh, w)
		}
		next[w] = struct{}{}
	}
	p.told = next
	return fresh
}
