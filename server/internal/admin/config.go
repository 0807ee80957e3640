package admin

import (
	"context"
	"strconv"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/errs"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/config"
)

// Values is the part of the configuration that is administered; *config.Values is one.
type Values interface {
	Get(ctx context.Context, namespace, id string) (config.Value, error)
	At(ctx context.Context, namespace, id string, revision int64) (config.Change, error)
	List(ctx context.Context, q config.Query) (config.Page, error)
	History(ctx context.Context, namespace, id string, marker int64, limit int) (config.History, error)
	Diff(ctx context.Context, namespace, id string, from, to int64) (config.Diff, error)
	Set(ctx context.Context, namespace, id string, in config.Input, cond config.Cond, author string) (config.Value, bool, error)
	Remove(ctx context.Context, namespace, id string, cond config.Cond, author string) (config.Value, error)
	Rollback(ctx context.Context, namespace, id string, to int64, cond config.Cond, author string) (config.Change, bool, error)
	Watch(namespace, prefix string, after int64) (*config.Watcher, error)
}

// values implements telford.admin.v1.Config.
type values struct {
	adminv1.UnimplementedConfigServer
	api *API
}

func (v *values) List(ctx context.Context, in *adminv1.ListConfigRequest) (*adminv1.ListConfigResponse, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	marker, limit, err := markerPage(in.GetPageSize(), in.GetPageToken())
	if err != nil {
		return nil, err
	}
	p, err := v.api.cfg.Values.List(ctx, config.Query{Namespace: namespace, Prefix: in.GetPrefix(), Marker: marker, Limit: limit})
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListConfigResponse{NextPageToken: markerToken(p.Next), Revision: p.Revision, Count: p.Count, Bytes: p.Bytes}
	for i := range p.Values {
		out.Items = append(out.Items, valueToProto(&p.Values[i]))
	}
	return out, nil
}

func (v *values) Get(ctx context.Context, in *adminv1.GetConfigRequest) (*adminv1.ConfigRevision, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	switch {
	case in.GetRevision() < 0:
		return nil, errs.New(errs.InvalidArgument, "revision: %d is negative; 0 means the value as it is", in.GetRevision())
	case in.GetRevision() > 0:
		c, err := v.api.cfg.Values.At(ctx, namespace, in.GetId(), in.GetRevision())
		if err != nil {
			return nil, err
		}
		return changeToProto(&c), nil
	}
	now, err := v.api.cfg.Values.Get(ctx, namespace, in.GetId())
	if err != nil {
		return nil, err
	}
	return &adminv1.ConfigRevision{Value: valueToProto(&now)}, nil
}

func (v *values) Set(ctx context.Context, in *adminv1.SetConfigRequest) (*adminv1.SetConfigResponse, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	now, changed, err := v.api.cfg.Values.Set(ctx, namespace, in.GetId(), config.Input{Value: in.GetValue(), JSON: in.GetJson()},
		config.Cond{IfRevision: in.IfRevision}, operator)
	if err != nil {
		return nil, err
	}
	return &adminv1.SetConfigResponse{Value: valueToProto(&now), Changed: changed}, nil
}

func (v *values) Remove(ctx context.Context, in *adminv1.RemoveConfigRequest) (*adminv1.ConfigValue, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	old, err := v.api.cfg.Values.Remove(ctx, namespace, in.GetId(), config.Cond{IfRevision: in.IfRevision}, operator)
	if err != nil {
		return nil, err
	}
	return valueToProto(&old), nil
}

func (v *values) ListHistory(ctx context.Context, in *adminv1.ListConfigHistoryRequest) (*adminv1.ListConfigHistoryResponse, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	token, limit, err := markerPage(in.GetPageSize(), in.GetPageToken())
	if err != nil {
		return nil, err
	}
	marker := int64(0)
	if token != "" {
		if marker, err = strconv.ParseInt(token, 10, 64); err != nil || marker <= 0 {
			return nil, badToken(in.GetPageToken())
		}
	}
	h, err := v.api.cfg.Values.History(ctx, namespace, in.GetId(), marker, limit)
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListConfigHistoryResponse{}
	if h.Next > 0 {
		out.NextPageToken = markerToken(strconv.FormatInt(h.Next, 10))
	}
	for i := range h.Changes {
		out.Items = append(out.Items, changeToProto(&h.Changes[i]))
	}
	return out, nil
}

func (v *values) GetDiff(ctx context.Context, in *adminv1.GetConfigDiffRequest) (*adminv1.ConfigDiff, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if in.GetFrom() < 0 || in.GetTo() < 0 {
		return nil, errs.New(errs.InvalidArgument, "from and to: %d and %d; revisions are not negative", in.GetFrom(), in.GetTo())
	}
	d, err := v.api.cfg.Values.Diff(ctx, namespace, in.GetId(), in.GetFrom(), in.GetTo())
	if err != nil {
		return nil, err
	}
	return &adminv1.ConfigDiff{From: changeToProto(&d.From), To: changeToProto(&d.To), Text: d.Text}, nil
}

func (v *values) Rollback(ctx context.Context, in *adminv1.RollbackConfigRequest) (*adminv1.RollbackConfigResponse, error) {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	if in.GetTo() <= 0 {
		return nil, errs.New(errs.InvalidArgument, "to: %d is no revision; telford config history shows those of a value", in.GetTo())
	}
	now, changed, err := v.api.cfg.Values.Rollback(ctx, namespace, in.GetId(), in.GetTo(), config.Cond{IfRevision: in.IfRevision}, operator)
	if err != nil {
		return nil, err
	}
	return &adminv1.RollbackConfigResponse{Revision: changeToProto(&now), Changed: changed}, nil
}

func (v *values) Watch(in *adminv1.WatchConfigRequest, out grpc.ServerStreamingServer[adminv1.ConfigUpdate]) error {
	namespace, err := v.api.namespace(in.GetNamespace())
	if err != nil {
		return err
	}
	w, err := v.api.cfg.Values.Watch(namespace, in.GetPrefix(), in.GetAfter())
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := v.api.untilStop(out.Context())
	defer cancel()
	for {
		u, err := w.Next(ctx)
		if err := v.api.running(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		step := &adminv1.ConfigUpdate{Snapshot: u.Snapshot, More: u.More, Revision: u.Revision}
		for i := range u.Values {
			step.Values = append(step.Values, valueToProto(&u.Values[i]))
		}
		for i := range u.Changes {
			step.Changes = append(step.Changes, changeToProto(&u.Changes[i]))
		}
		if err := out.Send(step); err != nil {
			return err
		}
	}
}

func valueToProto(v *config.Value) *adminv1.ConfigValue {
	return &adminv1.ConfigValue{
		Namespace: v.Namespace, Id: v.ID, Value: v.Value, Json: v.JSON, Revision: v.Revision, Author: v.Author, UpdatedAt: timestamp(v.At),
	}
}

func changeToProto(c *config.Change) *adminv1.ConfigRevision {
	return &adminv1.ConfigRevision{Value: valueToProto(&c.Value), Removed: c.Removed, Restored: c.Restored}
}
