package admin

import (
	"context"
	"encoding/hex"
	"strings"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/idempotency"
)

// Keyed is the part of the idempotency domain that is administered; *idempotency.Keys is
// one.
type Keyed interface {
	List(ctx context.Context, f idempotency.Filter) ([]*idempotency.Record, error)
}

// keyed implements telford.admin.v1.Idempotency.
type keyed struct {
	adminv1.UnimplementedIdempotencyServer
	api *API
}

func (k *keyed) List(ctx context.Context, in *adminv1.ListIdempotencyRequest) (*adminv1.ListIdempotencyResponse, error) {
	all, err := k.api.cfg.Keyed.List(ctx, idempotency.Filter{Namespace: in.GetNamespace(), Key: in.GetKey(), BusinessKey: in.GetBusinessKey()})
	if err != nil {
		return nil, err
	}
	page, next, err := paginate(all, in.GetPageSize(), in.GetPageToken(), func(r *idempotency.Record) string {
		return strings.Join([]string{r.Namespace, r.Caller, r.Callee, r.Method, r.Key}, "\x00")
	})
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListIdempotencyResponse{NextPageToken: next}
	for _, r := range page {
		out.Items = append(out.Items, recordToProto(r))
	}
	return out, nil
}

func recordToProto(r *idempotency.Record) *adminv1.IdempotencyRecord {
	state := r.State.String()
	if r.State == idempotency.Open && r.Once {
		state = "closed"
	}
	return &adminv1.IdempotencyRecord{
		Namespace: r.Namespace, Caller: r.Caller, Callee: r.Callee, Method: r.Method, Key: r.Key, BusinessKey: r.BusinessKey,
		State: state, Code: r.Code, AnswerBytes: r.Size, BodyHash: hex.EncodeToString(r.BodyHash), RequestId: r.RequestID,
		Instance: r.Instance, ClaimedAt: timestamp(r.Claimed), AnsweredAt: timestamp(r.Answered), ExpiresAt: timestamp(r.Expires),
		Deadline: timestamp(r.Deadline), TraceId: r.Trace,
	}
}
