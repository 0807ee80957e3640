// Package rulespb owns the wire form of what operators have laid down: packages policy,
// limit and transport to telford.v1 and back, and of what instances report about it. It
// converts and does not judge. It starts no goroutines. Neither side may be changed
// after a conversion: they share strings and slices.
package rulespb

import (
	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
)

// Rules is all that one instance has to know.
type Rules struct {
	// Revision grows with each change within one epoch of the runtime.
	Revision   uint64
	Policy     policy.Set
	Limits     []limit.Rule
	Transports []transport.Rule
	// Warnings say what of the declaration of the instance has not its full effect.
	Warnings []catalog.DeclarationWarning
}

// ToProto converts rules; nil gives nil.
func ToProto(r *Rules) *telfordv1.Rules {
	if r == nil {
		return nil
	}
	return &telfordv1.Rules{
		Revision:   r.Revision,
		Policy:     PolicyToProto(&r.Policy),
		Limits:     each(r.Limits, LimitToProto),
		Transports: each(r.Transports, TransportToProto),
		Warnings:   catalogpb.WarningsToProto(r.Warnings),
	}
}

// FromProto is the reverse; nil gives nil.
func FromProto(p *telfordv1.Rules) *Rules {
	if p == nil {
		return nil
	}
	return &Rules{
		Revision:   p.GetRevision(),
		Policy:     PolicyFromProto(p.GetPolicy()),
		Limits:     each(p.GetLimits(), LimitFromProto),
		Transports: each(p.GetTransports(), TransportFromProto),
		Warnings:   catalogpb.WarningsFromProto(p.GetWarnings()),
	}
}

// PolicyToProto converts a policy; nil gives nil.
func PolicyToProto(s *policy.Set) *telfordv1.Policy {
	if s == nil {
		return nil
	}
	return &telfordv1.Policy{
		Rules:      each(s.Rules, RuleToProto),
		Off:        each(s.Off, PairToProto),
		Restricted: each(s.Restricted, PairToProto),
		Shadowed:   each(s.Shadowed, PairToProto),
	}
}

// PolicyFromProto is the reverse; nil gives the policy without rules.
func PolicyFromProto(p *telfordv1.Policy) policy.Set {
	return policy.Set{
		Rules:      each(p.GetRules(), RuleFromProto),
		Off:        each(p.GetOff(), PairFromProto),
		Restricted: each(p.GetRestricted(), PairFromProto),
		Shadowed:   each(p.GetShadowed(), PairFromProto),
	}
}

// PairToProto converts a pair.
func PairToProto(p policy.Pair) *telfordv1.PolicyPair {
	return &telfordv1.PolicyPair{Service: p.Service, Action: string(p.Action)}
}

// PairFromProto is the reverse; nil gives the zero value.
func PairFromProto(p *telfordv1.PolicyPair) policy.Pair {
	return policy.Pair{Service: p.GetService(), Action: policy.Action(p.GetAction())}
}

// RuleToProto converts a rule of the policy.
func RuleToProto(r policy.Rule) *telfordv1.PolicyRule {
	return &telfordv1.PolicyRule{
		Id: r.ID, Service: r.Service, Action: string(r.Action), Effect: string(r.Effect),
		Peer: r.Peer, Target: r.Target, Shadow: r.Shadow,
	}
}

// RuleFromProto is the reverse; nil gives the zero value.
func RuleFromProto(p *telfordv1.PolicyRule) policy.Rule {
	return policy.Rule{
		ID: p.GetId(), Service: p.GetService(), Action: policy.Action(p.GetAction()), Effect: policy.Effect(p.GetEffect()),
		Peer: p.GetPeer(), Target: p.GetTarget(), Shadow: p.GetShadow(),
	}
}

// LimitToProto converts a rule about limits. Quotas of instances are the runtime's own
// and do not travel.
func LimitToProto(r limit.Rule) *telfordv1.LimitRule {
	return &telfordv1.LimitRule{Id: r.ID, Service: r.Service, Method: r.Method, Limit: catalogpb.LimitToProto(r.Limit)}
}

// LimitFromProto is the reverse; nil gives the zero value.
func LimitFromProto(p *telfordv1.LimitRule) limit.Rule {
	return limit.Rule{ID: p.GetId(), Service: p.GetService(), Method: p.GetMethod(), Limit: catalogpb.LimitFromProto(p.GetLimit())}
}

// TransportToProto converts a rule about the way of calls.
func TransportToProto(r transport.Rule) *telfordv1.TransportRule {
	return &telfordv1.TransportRule{
		Id: r.ID, Service: r.Service, Method: r.Method, Mode: r.Mode, Fallback: r.Fallback, TimeoutUs: r.Timeout.Microseconds(),
	}
}

// TransportFromProto is the reverse; nil gives the zero value.
func TransportFromProto(p *telfordv1.TransportRule) transport.Rule {
	return transport.Rule{
		ID: p.GetId(), Service: p.GetService(), Method: p.GetMethod(), Mode: p.GetMode(), Fallback: p.GetFallback(),
		Timeout: duration(p.GetTimeoutUs()),
	}
}
