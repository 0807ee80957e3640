package telford

import (
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// DefaultTimeout is the time that a call has when neither its context nor an option
// says otherwise. Streams have no end of their own.
const DefaultTimeout = 30 * time.Second

// TransportMode says which way calls go.
type TransportMode uint8

// The transports.
const (
	// Auto goes directly where an instance can be reached, else through the runtime.
	Auto TransportMode = iota
	// Direct goes only directly to an instance.
	Direct
	// Proxy goes only through the runtime.
	Proxy
)

// CallOption is an option of a unary call. Like all options of calls it can be given to
// the methods of generated clients too.
type CallOption interface {
	grpc.CallOption
	applyCall(o *callSettings)
}

// StreamOption is an option of a streaming call.
type StreamOption interface {
	grpc.CallOption
	applyStream(o *callSettings)
}

// RPCOption fits unary and streaming calls.
type RPCOption interface {
	CallOption
	StreamOption
}

// callSettings is what the options of a call add up to.
type callSettings struct {
	timeout        time.Duration // 0: nothing was said
	mode           invoke.Mode
	policy         resilience.Policy
	headers        []message.Pair
	requestID      string
	idempotencyKey string
	businessKey    string
	target         message.Target
	contractRule   contractRule
	contract       string // where the rule is givenContract
	failFast, wait bool
	header         *metadata.MD
	trailer        *metadata.MD
	peer           *peer.Peer
	maxRecv        int
	maxSend        int
	bad            error
}

func (o *callSettings) fail(format string, args ...any) {
	if o.bad == nil {
		o.bad = errs.New(errs.InvalidArgument, format, args...).In("sdk", "call options").Unstarted()
	}
}

type rpcOption struct {
	grpc.EmptyCallOption
	apply func(o *callSettings)
}

func (r rpcOption) applyCall(o *callSettings)   { r.apply(o) }
func (r rpcOption) applyStream(o *callSettings) { r.apply(o) }

type unaryOption struct {
	grpc.EmptyCallOption
	apply func(o *callSettings)
}

func (u unaryOption) applyCall(o *callSettings) { u.apply(o) }

type targetOption struct {
	rpcOption
	serviceOption
}

func rpc(f func(o *callSettings)) RPCOption { return rpcOption{apply: f} }

// Transport says which way the call goes. The default is what the operators' rules say
// about the method, else Auto; a call that says it itself is not diverted by a rule.
func Transport(mode TransportMode) RPCOption {
	return rpc(func(o *callSettings) {
		switch mode {
		case Auto:
			o.mode = invoke.Auto
		case Direct:
			o.mode = invoke.Direct
		case Proxy:
			o.mode = invoke.Proxy
		default:
			o.fail("Transport: %d is none of Auto, Direct, Proxy", mode)
		}
	})
}

// MaxAttempts counts the tries of a call, the first too; the default is 3, and 1 turns
// retries off. Only a failure with the proof that no handler began is tried again, or,
// with an idempotency key, one of which that is unknown. Streams are never retried, nor
// are calls of a handler whose own call is another attempt already. All further tries of
// a service's calls come out of its RetryBudget.
func MaxAttempts(n int) CallOption {
	return unaryOption{apply: func(o *callSettings) {
		if n < 1 || n > 100 {
			o.fail("MaxAttempts: %d is not between 1 and 100", n)
			return
		}
		o.policy.MaxAttempts = n
	}}
}

// RetryDelay sets the delays between attempts: full jitter under base, multiplied by
// factor each time, up to limit. The defaults are 200 ms, 2 and 5 s.
func RetryDelay(base time.Duration, factor float64, limit time.Duration) CallOption {
	return unaryOption{apply: func(o *callSettings) {
		p := resilience.Policy{MaxAttempts: 1, Base: base, Factor: factor, Cap: limit}
		if err := p.Validate(); err != nil {
			o.fail("RetryDelay: %s", errs.From(err).Message)
			return
		}
		o.policy.Base, o.policy.Factor, o.policy.Cap = base, factor, limit
	}}
}

// Header adds a request header. Keys are those of gRPC metadata: they end with -bin for
// values that are not printable ASCII.
func Header(key string, values ...string) RPCOption {
	return Headers(metadata.MD{key: values})
}

// Headers adds request headers, besides those in the context's outgoing metadata.
func Headers(md metadata.MD) RPCOption {
	return rpc(func(o *callSettings) {
		for k := range md {
			if grpcmeta.Reserved(strings.ToLower(k)) {
				o.fail("Header: %q is set by Telford or gRPC itself", k)
				return
			}
		}
		pairs, err := grpcmeta.Append(o.headers[:len(o.headers):len(o.headers)], md)
		if err != nil {
			o.fail("Header: %s", errs.From(err).Message)
			return
		}
		o.headers = pairs
	})
}

// ResponseHeader puts the response headers into md when the call has ended.
func ResponseHeader(md *metadata.MD) RPCOption {
	return rpc(func(o *callSettings) { o.header = md })
}

// ResponseTrailer puts the trailers into md when the call has ended.
func ResponseTrailer(md *metadata.MD) RPCOption {
	return rpc(func(o *callSettings) { o.trailer = md })
}

// RequestID names the logical call, over all its attempts and hops, instead of a random
// UUID.
func RequestID(id string) RPCOption {
	return rpc(func(o *callSettings) {
		var bad problems
		checkText(&bad, "RequestID", id, 128)
		if err := bad.err("call options"); err != nil {
			o.fail("%s", errs.From(err).Message)
			return
		}
		o.requestID = id
	})
}

// Instance sends the call to exactly this instance.
func Instance(id string) RPCOption {
	return rpc(func(o *callSettings) {
		if err := ident.CheckInstance(id); err != nil {
			o.fail("Instance: %s", errs.From(err).Message)
			return
		}
		o.target.Instance = id
	})
}

// Realm is, in New, the realm of this service; the default is "global". In a call it is
// the realm of the instances to pick from, in which * stands for any characters.
func Realm(realm string) TargetOption {
	return targetOption{
		rpcOption: rpcOption{apply: func(o *callSettings) { o.target.Realm = realm }},
		serviceOption: func(o *options, bad *problems) {
			checkText(bad, "Realm", realm, 128)
			if strings.Contains(realm, "*") {
				bad.addf("Realm: a service has one realm, %q is a pattern", realm)
			}
			o.realm = realm
		},
	}
}

// Version is, in New, the version of this service. In a call it is the version of the
// instances to pick from, or one that they say they are compatible with when none of
// exactly this version runs.
func Version(version string) TargetOption {
	return targetOption{
		rpcOption: rpcOption{apply: func(o *callSettings) { o.target.Version = version }},
		serviceOption: func(o *options, bad *problems) {
			checkText(bad, "Version", version, 64)
			o.version = version
		},
	}
}

// FailFast makes a call through the runtime fail at once while there is no session,
// instead of waiting for one until the deadline.
func FailFast() RPCOption {
	return rpc(func(o *callSettings) { o.failFast, o.wait = true, false })
}

// WaitForReady makes a call go on trying until its deadline while no instance is there
// to run it.
func WaitForReady() RPCOption {
	return rpc(func(o *callSettings) { o.failFast, o.wait = false, true })
}
