package grpcdoor

import (
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/callmeta"
)

// callToProto turns a call into the message of a Session stream, but for its deadline.
func callToProto(c *message.Call) *telfordv1.Call {
	return &telfordv1.Call{
		Seq: c.Seq, Service: c.Service, Method: c.Method, Stream: c.Stream,
		ContentType: c.ContentType.String(), Body: c.Body,
		Headers:   pairsToProto(c.Headers),
		RequestId: c.RequestID, Traceparent: callmeta.FormatTraceparent(&c.Trace), Tracestate: c.Trace.State,
		ChainRoot: c.ChainRoot, ChainNames: c.Chain,
		IdempotencyKey: c.IdempotencyKey, BusinessKey: c.BusinessKey, Attempt: uint32(c.Attempt),
		CallerService: c.Caller.Service, CallerInstance: c.Caller.Instance, CallerNamespace: c.Caller.Namespace,
		Realm: c.Target.Realm, Version: c.Target.Version, Instance: c.Target.Instance,
		Contract: c.Target.Contract, PreferContract: c.Target.PreferContract,
	}
}

// callFromProto is the reverse; now is what the deadline is counted from. Who calls is not read: that is for the credential.
func callFromProto(p *telfordv1.Call, now time.Time) (*message.Call, *errs.Error) {
	if p.GetSeq() == 0 {
		return nil, errs.New(errs.InvalidArgument, "a call without a seq; commands are numbered from 1")
	}
	if p.GetTimeoutUs() < 0 || p.GetTimeoutUs() > maxTimeout.Microseconds() {
		return nil, errs.New(errs.InvalidArgument, "a timeout_us of %d; it is at least 0, for none, and at most %d", p.GetTimeoutUs(), maxTimeout.Microseconds())
	}
	ct := message.ParseContentType(p.GetContentType())
	if ct == message.None && p.GetContentType() != "" {
		return nil, errs.New(errs.InvalidArgument, "content type %q is not one of proto, json, msgpack", p.GetContentType())
	}
	if p.GetMethod() == "" {
		return nil, errs.New(errs.InvalidArgument, "a call without a method")
	}
	c := &message.Call{
		Seq: p.GetSeq(), Service: p.GetService(), Method: p.GetMethod(), Stream: p.GetStream(),
		ContentType: ct, Body: p.GetBody(), Headers: pairsFromProto(p.GetHeaders()),
		RequestID: p.GetRequestId(), ChainRoot: p.GetChainRoot(), Chain: p.GetChainNames(),
		IdempotencyKey: p.GetIdempotencyKey(), BusinessKey: p.GetBusinessKey(), Attempt: int(min(p.GetAttempt(), 1<<20)),
		Target: message.Target{
			Realm: p.GetRealm(), Version: p.GetVersion(), Instance: p.GetInstance(),
			Contract: p.GetContract(), PreferContract: p.GetPreferContract(),
		},
	}
	if n := len(p.GetAvoid()); n > message.MaxAvoid {
		return nil, errs.New(errs.InvalidArgument, "%d instances to avoid, of %d at most", n, message.MaxAvoid)
	}
	c.Avoid = p.GetAvoid()
	if e := contract.Check(c.Target.Contract); e != nil {
		return nil, e
	}
	if t, ok := callmeta.ParseTraceparent(p.GetTraceparent()); ok {
		t.State = p.GetTracestate()
		c.Trace = t
	}
	if p.GetTimeoutUs() > 0 {
		c.Deadline = now.Add(time.Duration(p.GetTimeoutUs()) * time.Microsecond)
	}
	if e := message.CheckPayload(len(c.Body)); e != nil {
		return nil, e
	}
	return c, message.CheckHeaders(c.Headers)
}

// maxTimeout bounds what a client may ask for, so that sums do not overflow.
const maxTimeout = 10 * 365 * 24 * time.Hour

// resultToProto ends the call seq.
func resultToProto(seq uint64, r *message.Reply) *telfordv1.Result {
	return &telfordv1.Result{
		Seq: seq, Status: errpb.ToProto(r.Err), ContentType: r.ContentType.String(), Body: r.Body,
		Headers: pairsToProto(r.Headers), Trailers: pairsToProto(r.Trailers),
	}
}

// resultFromProto is the reverse.
func resultFromProto(p *telfordv1.Result) *message.Reply {
	r := &message.Reply{
		ContentType: message.ParseContentType(p.GetContentType()), Body: p.GetBody(),
		Headers: pairsFromProto(p.GetHeaders()), Trailers: pairsFromProto(p.GetTrailers()),
	}
	if p.GetStatus().GetCode() != "" {
		r.Err = errpb.FromProto(p.GetStatus())
	} else if e := message.CheckPayload(len(r.Body)); e != nil {
		e.NotStarted = false // the handler has run
		r = &message.Reply{Err: e}
	}
	return r
}

func pairsToProto(pairs []message.Pair) []*telfordv1.Pair {
	if len(pairs) == 0 {
		return nil
	}
	list := make([]*telfordv1.Pair, len(pairs))
	for i := range pairs {
		list[i] = &telfordv1.Pair{Key: pairs[i].Key, Value: pairs[i].Value}
	}
	return list
}

func pairsFromProto(list []*telfordv1.Pair) []message.Pair {
	if len(list) == 0 {
		return nil
	}
	pairs := make([]message.Pair, len(list))
	for i, p := range list {
		pairs[i] = message.Pair{Key: p.GetKey(), Value: p.GetValue()}
	}
	return pairs
}
