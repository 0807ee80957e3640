// Package restdoor owns the REST registry on the HTTP address: the routes below /v1.0 and
// /v2.0/tokens with their rules of paths, bodies, pages and faults. It turns requests into
// calls of the domains and their errors into faults, byte for byte as the clients of that
// API expect; it decides nothing about services, values or keys. It also calls services
// that were registered here and say where, over HTTP.
//
// It starts no goroutines; the connections to callees are owned by its transport, which
// Close ends.
package restdoor

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/restreg"
)

// Services are the services of all namespaces; *restreg.Directory is one.
type Services interface {
	Create(ctx context.Context, by restreg.Author, in restreg.Service) (restreg.UUID, error)
	Get(ctx context.Context, namespace, id string) (restreg.Service, error)
	List(ctx context.Context, namespace, tag, marker string, limit int) ([]restreg.Service, string, error)
	Update(ctx context.Context, by restreg.Author, id string, c restreg.Change) error
	Delete(ctx context.Context, by restreg.Author, id string) error
	Beat(ctx context.Context, by restreg.Author, id string, token restreg.UUID) (restreg.UUID, error)
	Settle(ctx context.Context, namespace string) error
	ServiceLimit(namespace string) int
}

// Tokens turn keys into tokens and back; *restreg.Tokens is one.
type Tokens interface {
	Issue(keyID, secret string) (text string, expires time.Time, p identity.Principal, err error)
	Check(ctx context.Context, text string) (identity.Principal, time.Time, error)
}

// Namespaces knows which namespace an account is; *identity.Authority is one.
type Namespaces interface {
	Namespace(ref string) (identity.Namespace, error)
}

// Config is what a Door is made of. Services, Tokens and Namespaces are required.
type Config struct {
	Services   Services
	Tokens     Tokens
	Namespaces Namespaces
	// Feed is what the events are read from; nil: there is no route for them.
	Feed Feed
	// Values are the configuration; nil: there is no route for it.
	Values Values
	// Proxied: a proxy in front does TLS, so that its word on the scheme counts.
	Proxied bool
	Clock   clock.Clock  // nil: the machine's
	Log     *slog.Logger // nil: none
}

// Door serves the REST registry. It is safe for concurrent use.
type Door struct {
	cfg     Config
	log     *slog.Logger
	clock   clock.Clock
	rates   rates
	counter atomic.Uint64
	stats   counters
	// newValues lets one request at a time add a value of the configuration.
	newValues sync.Mutex
}

// New returns a Door.
func New(cfg Config) *Door {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{cfg: cfg, log: cfg.Log, clock: cfg.Clock}
	d.rates.init()
	return d
}

// Takes reports whether a request is for this door. It looks at the path as it was sent,
// which nothing may have cleaned.
func (d *Door) Takes(r *http.Request) bool {
	path := rawPath(r)
	if rest, ok := cutFold(path, "/v1.0"); ok {
		return rest == "" || rest[0] == '/'
	}
	return isTokens(path)
}

// isTokens reports whether a path is that of the tokens.
func isTokens(path string) bool {
	rest, ok := cutFold(path, "/v2.0/tokens")
	return ok && (rest == "" || rest == "/")
}

// rawPath is the path of a request as it was sent.
func rawPath(r *http.Request) string {
	uri := r.RequestURI
	if uri == "" {
		return r.URL.EscapedPath()
	}
	if !strings.HasPrefix(uri, "/") {
		_, rest, ok := strings.Cut(uri, "://")
		i := strings.IndexByte(rest, '/')
		if !ok || i < 0 {
			return ""
		}
		uri = rest[i:]
	}
	path, _, _ := strings.Cut(uri, "?")
	return path
}

// cutFold is strings.CutPrefix without regard to the case of ASCII letters.
func cutFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !equalFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// equalFold folds ASCII letters only.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// ServeHTTP implements http.Handler for what the door takes.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := d.request(w, r)
	d.stats.requests.Add(1)
	if f := d.serve(q); f != nil { //nolint:contextcheck // the request has its context with it
		d.stats.faults.Add(1)
		q.fault(f)
	}
}

// serve answers a request, or says what is wrong with it, in the order of checks that
// clients rely on.
func (d *Door) serve(q *request) *rest.Fault {
	if d.tooLarge(q) {
		return nil
	}
	if f := q.parse(); f != nil {
		return f
	}
	if isTokens(q.path) {
		return d.tokens(q)
	}
	if f := d.authenticate(q); f != nil {
		return f
	}
	if f := d.rate(q); f != nil {
		return f
	}
	run, f := d.route(q)
	if f != nil {
		return f
	}
	return run(q)
}

// counters count what the door has done.
type counters struct{ requests, faults, issued atomic.Uint64 }

// Stats are the numbers of a Door since it was made.
type Stats struct {
	Requests uint64 // all of them
	Faults   uint64 // those answered with a fault
	Tokens   uint64 // tokens issued
}

// Stats returns the numbers.
func (d *Door) Stats() Stats {
	return Stats{Requests: d.stats.requests.Load(), Faults: d.stats.faults.Load(), Tokens: d.stats.issued.Load()}
}
