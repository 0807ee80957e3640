package link

import (
	"encoding/binary"
	"time"

	"google.golang.org/grpc/codes"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// The fields of a call block that are present, in the order in which they follow.
const (
	hasStream = 1 << iota
	hasService
	hasTimeout
	hasHeaders
	hasRequestID
	hasTrace
	hasTraceState
	hasChain
	hasIdempotency
	hasAttempt
	hasCaller
	hasTarget
	hasSeq
	hasBusinessKey
	hasPreferContract
	hasAvoid

	callMask = 1<<iota - 1
)

// appendCall appends the DEFINE frames that call needs and its OPEN frame up to, but
// without, the body; the caller appends the body and calls setLength with at.
func appendCall(b []byte, names *nameWriter, stream uint64, call *message.Call, timeout time.Duration) (_ []byte, at int) {
	b = names.define(b, call.Method)
	b = names.define(b, call.Service)
	for i := range call.Headers {
		b = names.define(b, call.Headers[i].Key)
	}
	for _, n := range call.Chain {
		b = names.define(b, n)
	}
	if call.Caller.Service != "" {
		b = names.define(b, call.Caller.Namespace)
		b = names.define(b, call.Caller.Service)
	}
	if call.Target.Contract != "" {
		b = names.define(b, call.Target.Contract)
	}
	at = len(b)
	b = appendHeader(b, frameOpen, 0, stream, 0)

	mask := uint64(0)
	if call.Stream {
		mask |= hasStream
	}
	if call.Service != "" {
		mask |= hasService
	}
	if timeout > 0 {
		mask |= hasTimeout
	}
	if len(call.Headers) > 0 {
		mask |= hasHeaders
	}
	if call.RequestID != "" {
		mask |= hasRequestID
	}
	if call.Trace.Valid() {
		mask |= hasTrace
		if call.Trace.State != "" {
			mask |= hasTraceState
		}
	}
	if call.ChainRoot != "" || len(call.Chain) > 0 {
		mask |= hasChain
	}
	if call.IdempotencyKey != "" {
		mask |= hasIdempotency
	}
	if call.Attempt > 0 {
		mask |= hasAttempt
	}
	if call.Caller != (message.Caller{}) {
		mask |= hasCaller
	}
	if call.Target != (message.Target{}) {
		mask |= hasTarget
	}
	if call.Seq > 0 {
		mask |= hasSeq
	}
	if call.BusinessKey != "" {
		mask |= hasBusinessKey
	}
	if call.Target.PreferContract {
		mask |= hasPreferContract
	}
	if len(call.Avoid) > 0 {
		mask |= hasAvoid
	}
	b = binary.AppendUvarint(b, mask)
	b = names.appendName(b, call.Method)
	b = append(b, byte(call.ContentType))
	if mask&hasService != 0 {
		b = names.appendName(b, call.Service)
	}
	if mask&hasTimeout != 0 {
		b = binary.AppendUvarint(b, uint64(max(1, timeout.Microseconds())))
	}
	if mask&hasHeaders != 0 {
		b = appendPairs(b, names, call.Headers)
	}
	if mask&hasRequestID != 0 {
		b = appendString(b, call.RequestID)
	}
	if mask&hasTrace != 0 {
		b = append(b, call.Trace.TraceID[:]...)
		b = append(b, call.Trace.SpanID[:]...)
		b = append(b, call.Trace.Flags)
	}
	if mask&hasTraceState != 0 {
		b = appendString(b, call.Trace.State)
	}
	if mask&hasChain != 0 {
		b = appendString(b, call.ChainRoot)
		b = binary.AppendUvarint(b, uint64(len(call.Chain)))
		for _, n := range call.Chain {
			b = names.appendName(b, n)
		}
	}
	if mask&hasIdempotency != 0 {
		b = appendString(b, call.IdempotencyKey)
	}
	if mask&hasAttempt != 0 {
		b = binary.AppendUvarint(b, uint64(call.Attempt))
	}
	if mask&hasCaller != 0 {
		b = names.appendName(b, call.Caller.Namespace)
		b = names.appendName(b, call.Caller.Service)
		b = appendString(b, call.Caller.Instance)
		b = appendString(b, call.Caller.KeyID)
	}
	if mask&hasTarget != 0 {
		b = appendString(b, call.Target.Realm)
		b = appendString(b, call.Target.Version)
		b = appendString(b, call.Target.Instance)
		b = names.appendName(b, call.Target.Contract)
	}
	if mask&hasSeq != 0 {
		b = binary.AppendUvarint(b, call.Seq)
	}
	if mask&hasBusinessKey != 0 {
		b = appendString(b, call.BusinessKey)
	}
	if mask&hasAvoid != 0 {
		avoid := call.Avoid[:min(len(call.Avoid), message.MaxAvoid)]
		b = binary.AppendUvarint(b, uint64(len(avoid)))
		for _, id := range avoid {
			b = appendString(b, id)
		}
	}
	return b, at
}

func appendPairs(b []byte, names *nameWriter, pairs []message.Pair) []byte {
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for i := range pairs {
		b = names.appendName(b, pairs[i].Key)
		b = appendString(b, pairs[i].Value)
	}
	return b
}

// decodeCall reads a call block into call; what is left of p is the body, which
// aliases p.
func decodeCall(p []byte, names *nameReader, call *message.Call, now time.Time) error {
	c := cursor{p: p}
	mask := c.uvarint("the field mask")
	if mask&^callMask != 0 {
		return protocolError("a call with unknown fields %#x", mask&^callMask)
	}
	call.Stream = mask&hasStream != 0
	call.Method = c.name(names, "the method")
	call.ContentType = message.ContentType(c.byte("the content type"))
	if mask&hasService != 0 {
		call.Service = c.name(names, "the service")
	}
	if mask&hasTimeout != 0 {
		us := c.uvarint("the timeout")
		// A remaining time beyond a century is none; the bound keeps the sum in range.
		if us < uint64(100*365*24*time.Hour/time.Microsecond) {
			call.Deadline = now.Add(time.Duration(us) * time.Microsecond)
		}
	}
	if mask&hasHeaders != 0 {
		call.Headers = c.pairs(names)
	}
	if mask&hasRequestID != 0 {
		call.RequestID = c.string("the request id")
	}
	if mask&hasTrace != 0 {
		copy(call.Trace.TraceID[:], c.take(16, "the trace id"))
		copy(call.Trace.SpanID[:], c.take(8, "the span id"))
		call.Trace.Flags = c.byte("the trace flags")
	}
	if mask&hasTraceState != 0 {
		call.Trace.State = c.string("the trace state")
	}
	if mask&hasChain != 0 {
		call.ChainRoot = c.string("the chain's root")
		if n := c.count("the chain"); n > 0 {
			call.Chain = make([]string, 0, min(n, message.MaxDepth+1))
			for range n {
				call.Chain = append(call.Chain, c.name(names, "a name of the chain"))
			}
		}
	}
	if mask&hasIdempotency != 0 {
		call.IdempotencyKey = c.string("the idempotency key")
	}
	if mask&hasAttempt != 0 {
		call.Attempt = int(min(c.uvarint("the attempt"), 1<<30))
	}
	if mask&hasCaller != 0 {
		call.Caller = message.Caller{
			Namespace: c.name(names, "the caller's namespace"), Service: c.name(names, "the caller's service"),
			Instance: c.string("the caller's instance"), KeyID: c.string("the caller's key"),
		}
	}
	if mask&hasTarget != 0 {
		call.Target = message.Target{
			Realm: c.string("the realm"), Version: c.string("the version"),
			Instance: c.string("the instance"), Contract: c.name(names, "the contract"),
		}
	}
	call.Target.PreferContract = mask&hasPreferContract != 0
	if mask&hasSeq != 0 {
		call.Seq = c.uvarint("the number")
	}
	if mask&hasBusinessKey != 0 {
		call.BusinessKey = c.string("the business key")
	}
	if mask&hasAvoid != 0 {
		n := c.count("the instances to avoid")
		if n > message.MaxAvoid {
			return protocolError("a call that avoids %d instances, of %d at most", n, message.MaxAvoid)
		}
		for range n {
			call.Avoid = append(call.Avoid, c.string("an instance to avoid"))
		}
	}
	call.Body = c.p
	return c.err
}

func (c *cursor) pairs(names *nameReader) []message.Pair {
	n := c.count("the headers")
	if n == 0 {
		return nil
	}
	pairs := make([]message.Pair, 0, min(n, 64))
	for range n {
		key := c.name(names, "a header's key")
		value := c.bytes("a header's value")
		if c.err != nil {
			return nil
		}
		pairs = append(pairs, message.Pair{Key: key, Value: append([]byte(nil), value...)})
	}
	return pairs
}

// The fields of a reply block.
const (
	replyStatus = 1 << iota
	replyHeaders
	replyTrailers

	replyMask = 1<<iota - 1
)

// appendReply appends the DEFINE frames and the REPLY frame up to the body.
func appendReply(b []byte, names *nameWriter, stream uint64, r *message.Reply) (_ []byte, at int) {
	for i := range r.Headers {
		b = names.define(b, r.Headers[i].Key)
	}
	for i := range r.Trailers {
		b = names.define(b, r.Trailers[i].Key)
	}
	at = len(b)
	b = appendHeader(b, frameReply, 0, stream, 0)
	var mask byte
	if r.Err != nil {
		mask |= replyStatus
	}
	if len(r.Headers) > 0 {
		mask |= replyHeaders
	}
	if len(r.Trailers) > 0 {
		mask |= replyTrailers
	}
	b = append(b, mask, byte(r.ContentType))
	if r.Err != nil {
		b = appendStatus(b, r.Err)
	}
	if len(r.Headers) > 0 {
		b = appendPairs(b, names, r.Headers)
	}
	if len(r.Trailers) > 0 {
		b = appendPairs(b, names, r.Trailers)
	}
	return b, at
}

// decodeReply reads a reply block into r; the rest of p is body, which aliases p.
func decodeReply(p []byte, names *nameReader, r *message.Reply) (body []byte, err error) {
	c := cursor{p: p}
	mask := c.byte("the field mask")
	if mask&^replyMask != 0 {
		return nil, protocolError("a reply with unknown fields %#x", mask&^replyMask)
	}
	r.ContentType = message.ContentType(c.byte("the content type"))
	if mask&replyStatus != 0 {
		r.Err = c.status()
	}
	if mask&replyHeaders != 0 {
		r.Headers = c.pairs(names)
	}
	if mask&replyTrailers != 0 {
		r.Trailers = c.pairs(names)
	}
	return c.p, c.err
}

func (c *cursor) status() *errs.Error {
	code := errs.Code(c.string("the code"))
	if c.err == nil && !code.Known() {
		code = errs.Internal
	}
	e := errs.New(code, "%s", "")
	e.GRPCCode = codes.Code(c.uvarint("the gRPC code"))
	e.Message = c.string("the message")
	flags := c.byte("the flags")
	e.NotStarted, e.Retryable = flags&1 != 0, flags&2 != 0
	e.RetryAfter = time.Duration(min(c.uvarint("the time to wait"), uint64(24*time.Hour/time.Microsecond))) * time.Microsecond
	e.Component = c.string("the component")
	e.Operation = c.string("the operation")
	for range c.count("the details") {
		e.Details = append(e.Details, append([]byte(nil), c.bytes("a detail")...))
	}
	if n := c.count("the facts"); n > 0 {
		e.Meta = make(map[string]string, min(n, 16))
		for range n {
			k, v := c.string("a fact's key"), c.string("a fact")
			if c.err != nil {
				break
			}
			e.Meta[k] = v
		}
	}
	return e
}
