package rules

import (
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
)

// sides are those by which denials are counted.
var sides = [...]string{policy.SideCapability, policy.SideSelfEgress, policy.SideSelfAcceptance, policy.SidePeerAcceptance}

// MayCall implements router.Policy: permission_denied names the rule that denies the
// call, nil lets it pass. A call that would be denied if the rules that are only counted
// held passes and is counted.
func (r *Rules) MayCall(namespace string, caller *message.Caller, service string, m *catalog.Method) *errs.Error {
	if policy.Exempt(caller.Namespace, caller.Service) {
		return nil
	}
	sp := r.find(namespace)
	if sp == nil {
		if policy.CheckCaller(m.AllowedCallers, caller.Service) {
			return nil
		}
		sp = r.space(namespace)
	}
	d := sp.current.Load().index.Verdict(caller.Service, service, m.Name)
	if d.Allowed && !policy.CheckCaller(m.AllowedCallers, caller.Service) {
		d = policy.NotAmongCallers(m.AllowedCallers, caller.Service, service, m.Name)
	}
	if !d.Allowed {
		sp.deny(d.Side, 1)
		return d.Err(caller.Service, service, m.Name)
	}
	if d.ShadowDenied {
		r.count(sp, ShadowDenial{
			Namespace: namespace, Service: d.ShadowBy.Service, Action: string(d.ShadowBy.Action),
			Caller: caller.Service, Callee: service, Target: m.Name, Count: 1,
		})
	}
	return nil
}

// Handles reports whether a service may be asked to run methods at all: a declaration of
// methods has no effect while the capability is off.
func (r *Rules) Handles(namespace, service string) bool {
	return !r.Policy(namespace).Off(service, policy.Handle)
}

// Warnings says what of a declaration has not its full effect by the policy of its
// namespace.
func (r *Rules) Warnings(namespace string, d *catalog.Declaration) []catalog.DeclarationWarning {
	return r.Policy(namespace).Warnings(d)
}

// ReportDenied counts calls that instances of a namespace have refused themselves, by
// the pair whose rules denied them.
func (r *Rules) ReportDenied(namespace string, by policy.Pair, count uint64) {
	sp := r.space(namespace)
	side := policy.SidePeerAcceptance
	switch {
	case sp.current.Load().index.Off(by.Service, by.Action):
		side = policy.SideCapability
	case by.Action == policy.Call || by.Action == policy.RunWorkflow:
		side = policy.SideSelfEgress
	}
	sp.deny(side, count)
}

func (sp *space) deny(side string, count uint64) {
	for i, s := range sides {
		if s == side {
			sp.denied[i].Add(count)
			return
		}
	}
}

// Stats are the counts of one namespace.
type Stats struct {
	Namespace string
	// Denied are calls that were refused since the start, by side.
	Denied map[string]uint64
	// ShadowDenied are calls that were served since the start and would not have been.
	ShadowDenied uint64
	// Rules are those in force, by kind.
	Rules map[string]int
}

// Stats returns the counts of every namespace that has any, in no order.
func (r *Rules) Stats() []Stats {
	all := *r.spaces.Load()
	list := make([]Stats, 0, len(all))
	for name, sp := range all {
		s := sp.current.Load()
		st := Stats{
			Namespace: name, Denied: make(map[string]uint64, len(sides)), ShadowDenied: sp.tally.total.Load(),
			Rules: map[string]int{kindPolicy: len(s.policy), kindCapability: len(s.off), kindLimit: len(s.limits), kindTransport: len(s.transports)},
		}
		for i, side := range sides {
			st.Denied[side] = sp.denied[i].Load()
		}
		list = append(list, st)
	}
	return list
}
