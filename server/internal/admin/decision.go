package admin

import (
	"context"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/policy"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

// GetDecision asks the same policy that is enforced, about the same names: the last
// segment of a method stands for the method that a call by it would mean.
func (p *policies) GetDecision(_ context.Context, in *adminv1.GetDecisionRequest) (*adminv1.Decision, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := checkService("from", in.GetFrom(), false); err != nil {
		return nil, err
	}
	action := policy.Action(in.GetAction())
	index := p.api.cfg.Rules.Policy(namespace)
	var d policy.Decision
	switch action {
	case "", policy.Call:
		if err := checkService("to", in.GetTo(), false); err != nil {
			return nil, err
		}
		if d, err = p.call(namespace, index, in.GetFrom(), in.GetTo(), in.GetTarget()); err != nil {
			return nil, err
		}
	case policy.RunWorkflow:
		if err := checkService("to", in.GetTo(), false); err != nil {
			return nil, err
		}
		if !catalog.ValidMethod(in.GetTarget()) {
			return nil, errs.New(errs.InvalidArgument, "target: %q is not the name of a workflow", in.GetTarget())
		}
		d = index.Run(in.GetFrom(), in.GetTo(), in.GetTarget())
	case policy.Publish, policy.HandleEvent:
		if in.GetTo() != "" {
			return nil, errs.New(errs.InvalidArgument, "to: %q is given, and events go to nobody in particular; leave it out", in.GetTo())
		}
		check, decide := policy.CheckTopic, index.Publish
		if action == policy.HandleEvent {
			check, decide = policy.CheckPattern, index.Subscribe
		}
		if err := check(in.GetTarget()); err != nil {
			return nil, err
		}
		d = decide(in.GetFrom(), in.GetTarget())
	default:
		return nil, errs.New(errs.InvalidArgument, "action: %q is none of %s, %s, %s, %s", in.GetAction(),
			policy.Call, policy.RunWorkflow, policy.Publish, policy.HandleEvent)
	}
	if d.Allowed && !d.ShadowDenied {
		d.Reason = "no rule denies it"
	}
	return &adminv1.Decision{
		Allowed: d.Allowed, Rule: d.Rule, Side: d.Side, Reason: d.Reason, Nearest: d.Nearest, ShadowDenied: d.ShadowDenied,
	}, nil
}

// call decides about a call, with what the callee itself says of its callers.
func (p *policies) call(namespace string, index *policy.Index, from, to, method string) (policy.Decision, error) {
	if !catalog.ValidMethod(method) {
		return policy.Decision{}, errs.New(errs.InvalidArgument,
			"target: %q is not the name of a method; give its full name or its last segment", method)
	}
	m, err := p.api.cfg.Method(namespace, to, method)
	switch errs.CodeOf(err) {
	case "":
	case errs.ServiceNotFound, errs.MethodNotFound, errs.NoInstance:
		m.Name, m.AllowedCallers = method, nil // nobody offers it at present; the rules still speak
	default:
		return policy.Decision{}, err // several methods have this last segment
	}
	d := index.Call(from, to, m.Name)
	if d.Allowed && !policy.Exempt(namespace, from) && !policy.CheckCaller(m.AllowedCallers, from) {
		d = *policy.NotAmongCallers(m.AllowedCallers, from, to, m.Name)
	}
	return d, nil
}
