package admin

import (
	"context"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/rules"
)

// Rules are policy and ways of calls, which operators lay down; *rules.Rules is one.
type Rules interface {
	Policy(namespace string) *policy.Index
	PolicyRules(namespace string) []rules.Stored[policy.Rule]
	Off(namespace string) []rules.Stored[policy.Pair]
	AddRule(ctx context.Context, namespace string, rule policy.Rule, author string) (rules.Stored[policy.Rule], error)
	RemoveRule(ctx context.Context, namespace, id, author string) (rules.Stored[policy.Rule], error)
	SetShadow(ctx context.Context, namespace, id string, on bool, author string) (rules.Stored[policy.Rule], error)
	SetCapability(ctx context.Context, namespace, service, name string, on bool, author string) error
	Shadow(ctx context.Context, namespace string) ([]rules.ShadowDenial, error)
	ClearShadow(ctx context.Context, namespace string) (int, error)

	Transports(namespace string) []rules.Stored[transport.Rule]
	SetTransport(ctx context.Context, namespace string, rule transport.Rule, author string) (rules.Stored[transport.Rule], error)
	RemoveTransport(ctx context.Context, namespace, id, author string) (rules.Stored[transport.Rule], error)
}

// namespace returns the name of the namespace that a request means: by name or account,
// the default one where it says nothing.
func (a *API) namespace(ref string) (string, error) {
	ns, err := a.cfg.Authority.Namespace(orDefault(ref))
	return ns.Name, err
}

// policies implements telford.admin.v1.Policy.
type policies struct {
	adminv1.UnimplementedPolicyServer
	api *API
}

func (p *policies) Get(_ context.Context, in *adminv1.GetPolicyRequest) (*adminv1.PolicyState, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	service := in.GetService()
	if err := checkService("service", service, true); err != nil {
		return nil, err
	}
	out := &adminv1.PolicyState{}
	for _, r := range p.api.cfg.Rules.PolicyRules(namespace) {
		if service == "" || r.Rule.Service == service || r.Rule.Peer != "" && policy.MatchGlob(r.Rule.Peer, service) {
			out.Rules = append(out.Rules, policyRuleToProto(namespace, r))
		}
	}
	for _, c := range p.api.cfg.Rules.Off(namespace) {
		if service == "" || c.Rule.Service == service {
			out.Capabilities = append(out.Capabilities, &adminv1.Capability{Namespace: namespace, Service: c.Rule.Service, Name: string(c.Rule.Action)})
		}
	}
	for _, i := range p.api.cfg.Registry.List(registry.Filter{Namespace: namespace, Service: service}) {
		for _, w := range p.api.cfg.Registry.Forbidden(namespace, i.ID) {
			out.Warnings = append(out.Warnings, &adminv1.PolicyWarning{
				Service: i.Declaration.Service, Instance: i.ID, Declaration: w.Declaration, Value: w.Value, Side: w.Side, Reason: w.Reason,
			})
		}
	}
	return out, nil
}

func (p *policies) AddRule(ctx context.Context, in *adminv1.AddPolicyRuleRequest) (*adminv1.PolicyRule, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	made, err := p.api.cfg.Rules.AddRule(ctx, namespace, policy.Rule{
		Service: in.GetService(), Action: policy.Action(in.GetAction()), Effect: policy.Effect(in.GetEffect()),
		Peer: in.GetPeer(), Target: in.GetTarget(), Shadow: in.GetShadow(),
	}, operator)
	if err != nil {
		return nil, err
	}
	return policyRuleToProto(namespace, made), nil
}

func (p *policies) RemoveRule(ctx context.Context, in *adminv1.RemovePolicyRuleRequest) (*adminv1.PolicyRule, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	gone, err := p.api.cfg.Rules.RemoveRule(ctx, namespace, in.GetId(), operator)
	if err != nil {
		return nil, err
	}
	return policyRuleToProto(namespace, gone), nil
}

func (p *policies) SetShadow(ctx context.Context, in *adminv1.SetPolicyShadowRequest) (*adminv1.PolicyRule, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	set, err := p.api.cfg.Rules.SetShadow(ctx, namespace, in.GetId(), in.GetShadow(), operator)
	if err != nil {
		return nil, err
	}
	return policyRuleToProto(namespace, set), nil
}

func (p *policies) SetCapability(ctx context.Context, in *adminv1.SetCapabilityRequest) (*adminv1.Capability, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := p.api.cfg.Rules.SetCapability(ctx, namespace, in.GetService(), in.GetName(), in.GetOn(), operator); err != nil {
		return nil, err
	}
	return &adminv1.Capability{Namespace: namespace, Service: in.GetService(), Name: in.GetName(), On: in.GetOn()}, nil
}

func (p *policies) ListShadow(ctx context.Context, in *adminv1.ListShadowRequest) (*adminv1.ListShadowResponse, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := checkService("service", in.GetService(), true); err != nil && in.GetService() != rules.Other {
		return nil, err
	}
	all, err := p.api.cfg.Rules.Shadow(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var some []rules.ShadowDenial
	for _, d := range all {
		if in.GetService() == "" || in.GetService() == d.Service {
			some = append(some, d)
		}
	}
	page, next, err := paginate(some, in.GetPageSize(), in.GetPageToken(), func(d rules.ShadowDenial) string {
		return strings.Join([]string{d.Service, d.Action, d.Caller, d.Callee, d.Target}, "\x00")
	})
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListShadowResponse{NextPageToken: next}
	for i := range page {
		d := &page[i]
		out.Items = append(out.Items, &adminv1.ShadowDenial{
			Service: d.Service, Action: d.Action, Caller: d.Caller, Callee: d.Callee, Target: d.Target, Count: d.Count,
			FirstAt: timestamp(d.First), LastAt: timestamp(d.Last),
		})
	}
	return out, nil
}

func (p *policies) ClearShadow(ctx context.Context, in *adminv1.ClearShadowRequest) (*adminv1.ClearShadowResponse, error) {
	namespace, err := p.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	n, err := p.api.cfg.Rules.ClearShadow(ctx, namespace)
	if err != nil {
		return nil, err
	}
	return &adminv1.ClearShadowResponse{Removed: int64(n)}, nil
}

func policyRuleToProto(namespace string, s rules.Stored[policy.Rule]) *adminv1.PolicyRule {
	r := &s.Rule
	return &adminv1.PolicyRule{
		Id: r.ID, Namespace: namespace, Service: r.Service, Action: string(r.Action), Effect: string(r.Effect), Peer: r.Peer,
		Target: r.Target, Shadow: r.Shadow, Revision: s.Revision, UpdatedAt: timestamp(s.Updated), Author: s.Author,
	}
}

// checkService refuses what cannot name a service.
func checkService(field, name string, mayBeEmpty bool) error {
	if name == "" && mayBeEmpty || catalog.ValidName(name) {
		return nil
	}
	return errs.New(errs.InvalidArgument, "%s: %q is not the name of a service, which has 1 to %d of a-z, 0-9, '.', '_', '-'", field, name, catalog.MaxName)
}
