package admin

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"telford.dev/telford/internal/errs"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/feed"
)

// Events is the part of the feed that is administered; *feed.Feed is one.
type Events interface {
	List(ctx context.Context, q *feed.Query) (feed.Page, error)
	Follow(ctx context.Context, namespace string, types []string, start feed.Start) (*feed.Follower, error)
}

// events implements telford.admin.v1.Feed.
type events struct {
	adminv1.UnimplementedFeedServer
	api *API
}

func (e *events) List(ctx context.Context, in *adminv1.ListFeedRequest) (*adminv1.ListFeedResponse, error) {
	namespace, err := e.api.namespace(in.GetNamespace())
	if err != nil {
		return nil, err
	}
	token, limit, err := markerPage(in.GetPageSize(), in.GetPageToken())
	if err != nil {
		return nil, err
	}
	q := &feed.Query{Namespace: namespace, Types: in.GetTypes(), Limit: limit}
	if token != "" {
		if q.Marker, err = feed.ParseID(token); err != nil {
			return nil, badToken(in.GetPageToken())
		}
	}
	if q.Since, err = instant("since", in.GetSince()); err != nil {
		return nil, err
	}
	if q.Until, err = instant("until", in.GetUntil()); err != nil {
		return nil, err
	}
	p, err := e.api.cfg.Events.List(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListFeedResponse{}
	if p.Next != (feed.ID{}) {
		out.NextPageToken = markerToken(p.Next.String())
	}
	out.Items, err = eventsToProto(p.Events)
	return out, err
}

func (e *events) Follow(in *adminv1.FollowFeedRequest, out grpc.ServerStreamingServer[adminv1.FeedEvents]) error {
	namespace, err := e.api.namespace(in.GetNamespace())
	if err != nil {
		return err
	}
	var start feed.Start
	if start.Since, err = instant("since", in.GetSince()); err != nil {
		return err
	}
	if in.GetAfter() != "" {
		if !start.Since.IsZero() {
			return errs.New(errs.InvalidArgument, "after and since: give one of them")
		}
		if start.After, err = feed.ParseID(in.GetAfter()); err != nil {
			return errs.New(errs.InvalidArgument, "after: %q is no id of an event: %w", in.GetAfter(), err)
		}
	}
	w, err := e.api.cfg.Events.Follow(out.Context(), namespace, in.GetTypes(), start)
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := e.api.untilStop(out.Context())
	defer cancel()
	for {
		all, err := w.Next(ctx)
		if err := e.api.running(); err != nil {
			return err
		}
		if err != nil {
			return err
		}
		step := &adminv1.FeedEvents{}
		if step.Items, err = eventsToProto(all); err != nil {
			return err
		}
		if err := out.Send(step); err != nil {
			return err
		}
	}
}

func instant(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, errs.New(errs.InvalidArgument, "%s: %w", field, err)
	}
	return t.AsTime(), nil
}

func eventsToProto(all []feed.Event) (out []*adminv1.FeedEvent, err error) {
	for i := range all {
		e := &all[i]
		payload := &structpb.Struct{}
		if err := payload.UnmarshalJSON(e.Payload); err != nil {
			return nil, errs.New(errs.Internal, "read the payload of event %s: %w", e.ID, err)
		}
		out = append(out, &adminv1.FeedEvent{Id: e.ID, Namespace: e.Namespace, At: timestamp(e.At), Type: e.Type, Payload: payload})
	}
	return out, nil
}
