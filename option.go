package telford

import (
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/internal/session"
)

// The defaults of a service.
const (
	// DefaultServer is the address of the runtime's gRPC port.
	DefaultServer = "127.0.0.1:14445"
	// DefaultTTL is how long a registration outlives its last sign of life.
	DefaultTTL = 90 * time.Second
	// DefaultInbound is how many inbound calls run at once, and how many more wait.
	DefaultInbound = 256
	// DefaultStreams is how many inbound streams run at once; DefaultInbound more wait.
	DefaultStreams = 1024
	// MinReconnect and MaxReconnect bound the delay before a new attempt to reach
	// the runtime, unless Reconnect says otherwise.
	MinReconnect = 100 * time.Millisecond
	MaxReconnect = 30 * time.Second
	// MaxPermits is the most commands that a runtime keeps running in one instance.
	MaxPermits = session.MaxPermits
)

// Option configures a Service in New.
type Option interface {
	applyService(o *options, bad *problems)
}

// TargetOption is one that describes a service in New and asks for such a service in a
// call.
type TargetOption interface {
	Option
	RPCOption
}

type serviceOption func(o *options, bad *problems)

func (f serviceOption) applyService(o *options, bad *problems) { f(o, bad) }

type use struct {
	service string
	methods []string
}

type options struct {
	server     string
	key        *ident.Key
	tls        *tlsIdentity
	instanceID string

	realm, version string
	compatible     []string
	tags           []string
	metadata       map[string]string
	weight         int
	locality       string
	capabilities   []string
	menu           []MenuItem
	local          bool
	ttl            time.Duration

	listen        string
	advertiseHost string
	advertisePort int
	callerOnly    bool

	defaults    []CallOption
	retryShare  *float64
	breaking    *resilience.Breaking
	reconnect   session.Backoff
	deafAfter   time.Duration
	exitDeaf    func(code int)
	maxInFlight int
	maxRunning  int
	maxWaiting  int
	maxStreams  int
	maxLine     int // streams that wait
	strict      bool
	// failOnViolation: start only when policy forbids nothing that is declared.
	failOnViolation bool
	uses            []use
	depends         []catalog.Dependency

	logger       *slog.Logger
	tracer       trace.Tracer
	unaryServer  []grpc.UnaryServerInterceptor
	streamServer []grpc.StreamServerInterceptor
	unaryClient  []grpc.UnaryClientInterceptor
	streamClient []grpc.StreamClientInterceptor

	clock    clock.Clock
	calendar clock.Clock // of certificates
}

func defaultOptions() options {
	return options{
		server: DefaultServer, realm: "global", weight: 1, ttl: DefaultTTL, maxInFlight: MaxPermits,
		maxRunning: DefaultInbound, maxWaiting: DefaultInbound, clock: clock.Real(), calendar: clock.Real(),
		maxStreams: DefaultStreams, maxLine: DefaultInbound,
		reconnect: session.Backoff{Min: MinReconnect, Max: MaxReconnect},
		deafAfter: DefaultDeafAfter,
	}
}

func (o *options) validate(bad *problems) {
	switch {
	case o.key == nil && o.tls == nil:
		bad.addf("there is no identity: give WithKey, FromEnv with TELFORD_KEY set, or WithTLS")
	case o.key != nil && o.tls != nil:
		bad.addf("WithKey and WithTLS are both given; a service has one identity")
	}
	if o.exitDeaf != nil && o.deafAfter == 0 {
		bad.addf("ExitWhenDeaf and DeafAfter(0) are both given: it never turns deaf")
	}
	if host, _, err := net.SplitHostPort(o.listen); err == nil && o.advertiseHost == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			bad.addf("Listen: nobody can dial the wildcard address of %q; give Advertise(host, port) as well", o.listen)
		}
	}
	if o.callerOnly && (o.listen != "" || o.advertiseHost != "") {
		bad.addf("CallerOnly is given together with Listen or Advertise; a caller-only service has no address")
	}
}

// FromEnv takes the address of the runtime from TELFORD_SERVER and the service key from
// TELFORD_KEY, where they are set. Nothing else in this package reads the environment.
func FromEnv() Option {
	return serviceOption(func(o *options, bad *problems) {
		if v := os.Getenv("TELFORD_SERVER"); v != "" {
			WithServer(v).applyService(o, bad)
		}
		if v := os.Getenv("TELFORD_KEY"); v != "" {
			WithKey(v).applyService(o, bad)
		}
	})
}

// WithServer sets the host:port of the runtime's gRPC port; the default is
// DefaultServer.
func WithServer(addr string) Option {
	return serviceOption(func(o *options, bad *problems) {
		host, port, err := net.SplitHostPort(addr)
		if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
			bad.addf("WithServer: %q is not host:port", addr)
			return
		}
		o.server = addr
	})
}

// WithKey sets the service key that "telford keys create" has printed. The key is
// exchanged for a short-lived certificate at Start and never logged.
func WithKey(text string) Option {
	return serviceOption(func(o *options, bad *problems) {
		key, err := ident.ParseKey(text)
		if err != nil {
			bad.add(err)
			return
		}
		o.key = &key
	})
}

// WithTLS gives the service a certificate of yours instead of one provisioned with a
// key: cert, key and ca are PEM. The certificate must carry exactly one URI name, the
// SPIFFE id of this instance. serverName, if not empty, is the host name that the
// runtime's certificate must be valid for. The service does not renew it.
func WithTLS(cert, key, ca []byte, serverName string) Option {
	return serviceOption(func(o *options, bad *problems) {
		if t := parseTLS(cert, key, ca, serverName, bad); t != nil {
			o.tls = t
		}
	})
}

// WithCertificateClock judges and renews certificates by another clock than that of the
// machine, as *telfordtest.Clock is one: for tests of their rotation. All other time
// stays that of the machine.
func WithCertificateClock(c clock.Clock) Option {
	return serviceOption(func(o *options, bad *problems) {
		if c == nil {
			bad.addf("WithCertificateClock: the clock is nil")
			return
		}
		o.calendar = c
	})
}

// InstanceID names this instance instead of a generated id: 1 to 128 of a-z, A-Z, 0-9,
// '.', '_', '-'. A second process with the same id fences the first one for good.
func InstanceID(id string) Option {
	return serviceOption(func(o *options, bad *problems) {
		bad.add(ident.CheckInstance(id))
		o.instanceID = id
	})
}

// CompatibleVersions lists the versions whose callers this instance serves when no
// instance of exactly their version runs.
func CompatibleVersions(versions ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, v := range versions {
			checkText(bad, "CompatibleVersions", v, 64)
		}
		o.compatible = append(o.compatible, versions...)
	})
}

// Tags adds labels by which instances are found.
func Tags(tags ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, t := range tags {
			checkText(bad, "Tags", t, 128)
		}
		o.tags = append(o.tags, tags...)
	})
}

// Metadata adds facts about this instance that others can read.
func Metadata(md map[string]string) Option {
	return serviceOption(func(o *options, bad *problems) {
		if o.metadata == nil {
			o.metadata = make(map[string]string, len(md))
		}
		for k, v := range md {
			checkText(bad, "Metadata: key", k, 128)
			o.metadata[k] = v
		}
	})
}

// Weight is the relative share of calls that this instance gets, 1 to 1000; the default
// is 1.
func Weight(n int) Option {
	return serviceOption(func(o *options, bad *problems) {
		if n < 1 || n > 1000 {
			bad.addf("Weight: %d is not between 1 and 1000", n)
			return
		}
		o.weight = n
	})
}

// Locality says where this instance runs; calls prefer instances of their own locality.
func Locality(where string) Option {
	return serviceOption(func(o *options, bad *problems) {
		checkText(bad, "Locality", where, 128)
		o.locality = where
	})
}

// ZoneOnly hides this instance from the other zones.
func ZoneOnly() Option { return serviceOption(func(o *options, _ *problems) { o.local = true }) }

// TTL is how long the registration outlives the last sign of life, 3 s to 24 h; the
// default is DefaultTTL.
func TTL(d time.Duration) Option {
	return serviceOption(func(o *options, bad *problems) {
		if d < 3*time.Second || d > 24*time.Hour {
			bad.addf("TTL: %v is not between 3s and 24h", d)
			return
		}
		o.ttl = d
	})
}

// Capabilities names policy switches that the instance asks for besides those that
// follow from its handlers.
func Capabilities(names ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, n := range names {
			checkText(bad, "Capabilities", n, 128)
		}
		o.capabilities = append(o.capabilities, names...)
	})
}

// Listen sets the host:port to listen on for direct calls; the default is a free port.
// The address is what others are told too, unless Advertise says another; a wildcard
// host needs Advertise.
func Listen(addr string) Option {
	return serviceOption(func(o *options, bad *problems) {
		_, port, err := net.SplitHostPort(addr)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
			bad.addf("Listen: %q is not host:port", addr)
			return
		}
		o.listen = addr
	})
}

// Advertise sets the host and port that others dial; port 0 means the port that is
// listened on. The default is the local address of the connection to the runtime.
func Advertise(host string, port int) Option {
	return serviceOption(func(o *options, bad *problems) {
		switch ip := net.ParseIP(host); {
		case host == "" || strings.ContainsAny(host, " /") || ip == nil && strings.Contains(host, ":"):
			bad.addf("Advertise: %q is not a host", host)
		case ip != nil && ip.IsUnspecified():
			bad.addf("Advertise: nobody can dial the wildcard address %s", host)
		case port < 0 || port > 65535:
			bad.addf("Advertise: %d is not a port", port)
		default:
			o.advertiseHost, o.advertisePort = host, port
		}
	})
}

// CallerOnly makes a service that only calls: it never listens and takes no handlers.
func CallerOnly() Option { return serviceOption(func(o *options, _ *problems) { o.callerOnly = true }) }

// CallDefaults are options under those of every Call, Stream and generated client.
// Those that fit only Call are left out of streams.
func CallDefaults(opts ...CallOption) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, opt := range opts {
			if opt == nil {
				bad.addf("CallDefaults: an option is nil")
				return
			}
			var try callSettings
			opt.applyCall(&try)
			bad.add(try.bad)
		}
		o.defaults = append(o.defaults, opts...)
	})
}

// Reconnect bounds the attempts to reach the runtime again: full jitter under a delay
// that doubles from min to max, and at most attempts in a row, 0 for ever. The defaults
// are 100 ms, 30 s and for ever.
func Reconnect(minDelay, maxDelay time.Duration, attempts int) Option {
	return serviceOption(func(o *options, bad *problems) {
		if minDelay <= 0 || maxDelay < minDelay || attempts < 0 {
			bad.addf("Reconnect: want 0 < min <= max and attempts >= 0, got %v, %v, %d", minDelay, maxDelay, attempts)
			return
		}
		o.reconnect = session.Backoff{Min: minDelay, Max: maxDelay, Attempts: attempts}
	})
}

// DefaultDeafAfter is how long a service may get nowhere with the runtime before it is
// deaf.
const DefaultDeafAfter = 5 * time.Minute

// DeafAfter is how long a service may be without a session with the runtime on which
// anything moves, before it is deaf: 1 s or more, and 0 for ever. A deaf service is not
// ready: see Healthy and OnDeaf. It goes on trying, and direct calls go on in both
// directions.
func DeafAfter(d time.Duration) Option {
	return serviceOption(func(o *options, bad *problems) {
		if d != 0 && d < time.Second {
			bad.addf("DeafAfter: %v is shorter than 1s; 0 turns it off", d)
			return
		}
		o.deafAfter = d
	})
}

// ExitDeaf is the exit status of ExitWhenDeaf: a failure that another start may mend.
const ExitDeaf = 75

// ExitWhenDeaf has exit called with ExitDeaf when the service turns deaf, after the
// callbacks of OnDeaf have run. Give it os.Exit to have the process started anew by
// whatever looks after it, or a function that ends it in order.
func ExitWhenDeaf(exit func(code int)) Option {
	return serviceOption(func(o *options, bad *problems) {
		if exit == nil {
			bad.addf("ExitWhenDeaf: the function is nil; give os.Exit, or one that ends the process in order")
			return
		}
		o.exitDeaf = exit
	})
}

// MaxInFlight is the most commands of the runtime that run here at once, 1 to
// MaxPermits, which is the default. A session begins with 64 at most.
func MaxInFlight(n int) Option {
	return serviceOption(func(o *options, bad *problems) {
		if n < 1 || n > MaxPermits {
			bad.addf("MaxInFlight: %d is not between 1 and %d", n, MaxPermits)
			return
		}
		o.maxInFlight = n
	})
}

// InboundLimit bounds the unary calls that run here at once over all connections, 1 to
// 1,000,000, and those that wait for one to end, 0 to 1,000,000. A call beyond is refused
// with resource_exhausted, unbegun. The defaults are DefaultInbound each. Operators may
// replace both while the service runs ("telford limits set SERVICE").
func InboundLimit(running, waiting int) Option {
	return serviceOption(func(o *options, bad *problems) {
		if inboundBounds("InboundLimit", running, waiting, bad) {
			o.maxRunning, o.maxWaiting = running, waiting
		}
	})
}

// InboundStreams is InboundLimit for streaming calls, which are counted for themselves
// until they end. The defaults are DefaultStreams and DefaultInbound.
func InboundStreams(running, waiting int) Option {
	return serviceOption(func(o *options, bad *problems) {
		if inboundBounds("InboundStreams", running, waiting, bad) {
			o.maxStreams, o.maxLine = running, waiting
		}
	})
}

func inboundBounds(option string, running, waiting int, bad *problems) bool {
	if running < 1 || running > catalog.MaxConcurrency || waiting < 0 || waiting > catalog.MaxQueue {
		bad.addf("%s: want 1 to %d running and 0 to %d waiting, got %d and %d", option, catalog.MaxConcurrency, catalog.MaxQueue, running, waiting)
		return false
	}
	return true
}

// StrictDeclarations refuses calls to what was not declared with Uses or Conn before
// Start.
func StrictDeclarations() Option {
	return serviceOption(func(o *options, _ *problems) { o.strict = true })
}

// Uses declares that this service calls another: the methods named, or any. The watch
// of its instances begins at Start, so that the first call finds them.
func Uses(service string, methods ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		bad.add(ident.CheckService(service))
		o.uses = append(o.uses, use{service, methods})
	})
}

// UsesWorkflow declares that this service starts workflows of another: those named, or
// any.
func UsesWorkflow(service string, workflows ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		bad.add(ident.CheckService(service))
		o.depends = append(o.depends, catalog.Dependency{Kind: "workflow", Target: service, Names: slices.Clone(workflows)})
	})
}

// Publishes declares the events that this service publishes.
func Publishes(events ...string) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, e := range events {
			if !eventName(e) {
				bad.addf("Publishes: %q is no event name; want words of a-z, 0-9, '_', '-' joined by dots", e)
				continue
			}
			o.depends = append(o.depends, catalog.Dependency{Kind: "event", Target: e})
		}
	})
}

// eventName reports whether s is words of a-z, 0-9, '_', '-' joined by dots.
func eventName(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return false
		}
	}
	return true
}

// Logger receives what the service has to say; the default says nothing.
func Logger(l *slog.Logger) Option {
	return serviceOption(func(o *options, bad *problems) {
		if l == nil {
			bad.addf("Logger: nil")
			return
		}
		o.logger = l
	})
}

// TracerProvider makes a span for every call made and served. Without it the trace
// context of callers is passed on, and no spans are made.
func TracerProvider(tp trace.TracerProvider) Option {
	return serviceOption(func(o *options, bad *problems) {
		if tp == nil {
			bad.addf("TracerProvider: nil")
			return
		}
		o.tracer = tp.Tracer("telford.dev/telford")
	})
}

// MenuItem is an entry that a service offers to the console.
type MenuItem struct {
	ID, Label string
	// Kind is "LINK", "IFRAME" or "MODAL".
	Kind string
	// Path is below the service's own web address.
	Path  string
	Icon  string
	Order int
	// Roles that see it; empty means everybody.
	Roles []string
}

// WithMenu adds entries to the console's menu.
func WithMenu(items ...MenuItem) Option {
	return serviceOption(func(o *options, bad *problems) {
		for _, i := range items {
			switch {
			case i.ID == "" || i.Label == "":
				bad.addf("WithMenu: an item needs an id and a label, got %q and %q", i.ID, i.Label)
			case i.Kind != "LINK" && i.Kind != "IFRAME" && i.Kind != "MODAL":
				bad.addf("WithMenu: item %s has kind %q; want LINK, IFRAME or MODAL", i.ID, i.Kind)
			}
		}
		o.menu = append(o.menu, items...)
	})
}

// UnaryServerInterceptors run around every unary handler, the first one outermost.
func UnaryServerInterceptors(chain ...grpc.UnaryServerInterceptor) Option {
	return serviceOption(func(o *options, _ *problems) { o.unaryServer = append(o.unaryServer, chain...) })
}

// StreamServerInterceptors run around every streaming handler, the first one outermost.
func StreamServerInterceptors(chain ...grpc.StreamServerInterceptor) Option {
	return serviceOption(func(o *options, _ *problems) { o.streamServer = append(o.streamServer, chain...) })
}

// UnaryClientInterceptors run around every unary call on a Conn, the first one
// outermost. The ClientConn that they get is that of GRPCConn.
func UnaryClientInterceptors(chain ...grpc.UnaryClientInterceptor) Option {
	return serviceOption(func(o *options, _ *problems) { o.unaryClient = append(o.unaryClient, chain...) })
}

// StreamClientInterceptors run around every stream on a Conn, the first one outermost.
func StreamClientInterceptors(chain ...grpc.StreamClientInterceptor) Option {
	return serviceOption(func(o *options, _ *problems) { o.streamClient = append(o.streamClient, chain...) })
}

// checkText refuses text that is empty, too long or has control characters.
func checkText(bad *problems, what, text string, limit int) {
	switch {
	case text == "":
		bad.addf("%s: it is empty", what)
	case len(text) > limit:
		bad.addf("%s: %q... has %d bytes, at most %d are allowed", what, text[:16], len(text), limit)
	case strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		bad.addf("%s: %q has a control character", what, text)
	}
}
