package admin

import (
	"context"

	"telford.dev/telford/internal/transport"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/rules"
)

// transports implements telford.admin.v1.Transport.
type transports struct {
	adminv1.UnimplementedTransportServer
	api *API
}

func (t *transports) List(_ context.Context, in *adminv1.ListTransportsRequest) (*adminv1.ListTransportsResponse, error) {
	namespace, err := t.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := checkService("service", in.GetService(), true); err != nil {
		return nil, err
	}
	var some []rules.Stored[transport.Rule]
	for _, r := range t.api.cfg.Rules.Transports(namespace) {
		if in.GetService() == "" || in.GetService() == r.Rule.Service {
			some = append(some, r)
		}
	}
	page, next, err := paginate(some, in.GetPageSize(), in.GetPageToken(), func(r rules.Stored[transport.Rule]) string { return r.Rule.ID })
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListTransportsResponse{NextPageToken: next}
	for _, r := range page {
		out.Items = append(out.Items, transportToProto(namespace, r))
	}
	return out, nil
}

func (t *transports) Set(ctx context.Context, in *adminv1.SetTransportRequest) (*adminv1.TransportRule, error) {
	namespace, err := t.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	timeout, err := duration("timeout", in.GetTimeout(), 0)
	if err != nil {
		return nil, err
	}
	set, err := t.api.cfg.Rules.SetTransport(ctx, namespace, transport.Rule{
		Service: in.GetService(), Method: in.GetMethod(), Mode: in.GetMode(), Fallback: in.GetFallback(), Timeout: timeout,
	}, operator)
	if err != nil {
		return nil, err
	}
	return transportToProto(namespace, set), nil
}

func (t *transports) Remove(ctx context.Context, in *adminv1.RemoveTransportRequest) (*adminv1.TransportRule, error) {
	namespace, err := t.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	gone, err := t.api.cfg.Rules.RemoveTransport(ctx, namespace, in.GetId(), operator)
	if err != nil {
		return nil, err
	}
	return transportToProto(namespace, gone), nil
}

func transportToProto(namespace string, s rules.Stored[transport.Rule]) *adminv1.TransportRule {
	r := &s.Rule
	out := &adminv1.TransportRule{
		Id: r.ID, Namespace: namespace, Service: r.Service, Method: r.Method, Mode: r.Mode, Fallback: r.Fallback,
		UpdatedAt: timestamp(s.Updated), Author: s.Author,
	}
	if r.Timeout > 0 {
		out.Timeout = r.Timeout.String()
	}
	return out
}
