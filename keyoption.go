package telford

import (
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// IdempotencyKey has the call done once: whoever makes the same call with the same key
// again, this service in this process or in another, gets the answer of the first,
// success or failure of the handler, and a call that comes while the first one runs waits
// for its answer. Answers are kept for 24 h. The scope of a key is the namespace, this
// service, the called service and the method: the same key in another scope is another
// key. The same key with another request is ErrIdempotencyConflict.
//
// A key is printable ASCII of at most 256 bytes that the caller makes up, and keeps
// together with what it asks for: an order number, or a UUID stored before the call. A
// call with a key goes through the runtime, which keeps the answers. With
// Transport(Direct) it is ErrFailedPrecondition, and without a runtime ErrUnavailable. A
// call that was given to an instance and whose outcome is unknown, because the instance or
// the deadline was lost, runs again under its key, unless its method was declared with
// Retryable(false).
func IdempotencyKey(key string) CallOption {
	return unaryOption{apply: func(o *callSettings) {
		if key == "" {
			o.fail("IdempotencyKey: it is empty; leave the option out for a call without one")
			return
		}
		if err := message.CheckKey("idempotency key", key); err != nil {
			o.fail("IdempotencyKey: %s", errs.From(err).Message)
			return
		}
		o.idempotencyKey = key
	}}
}

// BusinessKey names what the call is about, such as an order number, so that people find
// it later. It is printable ASCII of at most 256 bytes and means nothing to Telford. The
// handler sees it.
func BusinessKey(key string) RPCOption {
	return rpc(func(o *callSettings) {
		if err := message.CheckKey("business key", key); err != nil {
			o.fail("BusinessKey: %s", errs.From(err).Message)
			return
		}
		o.businessKey = key
	})
}
