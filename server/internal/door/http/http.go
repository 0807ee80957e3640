// Package httpdoor owns the HTTP address: calls and streams with JSON, protobuf or
// msgpack bodies, health, metrics, and the place where the administration API is
// mounted. It turns requests into requests of the router and errors into problem
// details; it decides nothing about them.
//
// The Server owns the goroutine that serves; net/http owns one for each connection, and
// a stream owns one more that ends with it. Stop ends them all.
package httpdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/router"
)

// Router runs calls; *router.Router is one.
type Router interface {
	Call(ctx context.Context, req *router.Request) (*message.Reply, error)
	Stream(ctx context.Context, req *router.Request) (message.Stream, error)
}

// Early is a handler that chooses its requests itself.
type Early interface {
	http.Handler
	Takes(r *http.Request) bool
}

// Times of the door.
const (
	headerTimeout = 10 * time.Second // to receive the header of a request
	bodyTimeout   = 60 * time.Second // to receive a body
	writeTimeout  = 30 * time.Second // for a client to take one piece of an answer
	idleTimeout   = 2 * time.Minute  // between requests
	keepAlive     = 15 * time.Second // between signs of life on a silent stream
	// DefaultTimeout bounds a call that brings no deadline; streams have none then.
	DefaultTimeout = 30 * time.Second
	maxHeader      = 64 << 10 // bytes of a request's header
)

// Config says what is served.
type Config struct {
	Router Router
	Gate   *admit.Gate
	// TLS is used when it is set; plain HTTP/1.1 otherwise.
	TLS *tls.Config
	// Ready returns why the runtime cannot serve yet or any more; nil when it can.
	Ready func(ctx context.Context) error
	// Metrics is served under /metrics to whoever has a credential, or to all when
	// OpenMetrics is set.
	Metrics     http.Handler
	OpenMetrics bool
	// Admin is served under /api/v1/; it checks credentials itself.
	Admin http.Handler
	// REST, unless nil, gets the requests that it takes, before anything has touched their
	// paths.
	REST Early
	// Version is told under /healthz.
	Version string
	Zone    string
	Log     *slog.Logger

	writeTimeout, keepAlive time.Duration // for tests; zero means the constants
}

// Server is the HTTP door.
type Server struct {
	cfg  Config
	http *http.Server
	// hard ends what still runs when the time to stop is over.
	hard context.CancelCauseFunc
	base context.Context

	mu      sync.Mutex
	started bool
	stopped bool
	done    chan struct{}
}

// New returns a Server that has not started.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.writeTimeout == 0 {
		cfg.writeTimeout = writeTimeout
	}
	if cfg.keepAlive == 0 {
		cfg.keepAlive = keepAlive
	}
	s := &Server{cfg: cfg, done: make(chan struct{})}
	s.base, s.hard = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		TLSConfig:         cfg.TLS,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Handler returns everything that the door serves, for tests and for mounting.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("POST /call/{service}/{method...}", s.call)
	mux.HandleFunc("POST /stream/{service}/{method...}", s.stream)
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.metrics())
	}
	if s.cfg.Admin != nil {
		mux.Handle("/api/v1/", s.cfg.Admin)
	}
	mux.HandleFunc("/", s.nothing)
	early := s.cfg.REST
	if early == nil {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if early.Takes(r) {
			early.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// Start serves on l, which the Server owns from here on. A second Start, or one after
// Stop, is an error and closes l.
func (s *Server) Start(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopped {
		_ = l.Close()
		return errs.New(errs.FailedPrecondition, "the HTTP door was started or stopped before; make a new one").In("http", "start")
	}
	s.started = true
	go func() {
		defer close(s.done)
		var err error
		if s.cfg.TLS != nil {
			err = s.http.ServeTLS(l, "", "")
		} else {
			err = s.http.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error("the HTTP door has ended", "error", err)
		}
	}()
	return nil
}

// Stop takes no new requests and waits for those under way; when ctx ends first, they
// are cut. It is safe before Start and more than once.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	started := s.started
	s.mu.Unlock()
	if err := s.http.Shutdown(ctx); err != nil {
		s.hard(errs.New(errs.Unavailable, "the runtime is stopping; call again"))
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = s.http.Shutdown(last) // what was cut says so to its callers
		cancel()
		_ = s.http.Close()
	}
	s.hard(nil)
	if started {
		<-s.done
	}
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok", "version": s.cfg.Version})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(r.Context()); err != nil {
			e := errs.From(err)
			if e.Code == errs.Internal {
				e = errs.New(errs.Unavailable, "not ready: %w", err)
			}
			WriteProblem(w, e)
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready", "version": s.cfg.Version})
}

func (s *Server) metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.OpenMetrics {
			if _, err := s.cfg.Gate.Bearer(r.Context(), r.Header.Get("Authorization"), ""); err != nil {
				WriteProblem(w, err)
				return
			}
		}
		s.cfg.Metrics.ServeHTTP(w, r)
	})
}

// nothing answers what no route takes. Without a credential it does not tell what there
// is.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	if _, err := s.cfg.Gate.Bearer(r.Context(), r.Header.Get("Authorization"), r.Header.Get("Telford-Namespace")); err != nil {
		WriteProblem(w, err)
		return
	}
	e := errs.New(errs.NotFound, "nothing is served at %s %s; calls are POST /call/{service}/{method} and POST /stream/{service}/{method}", r.Method, r.URL.Path)
	writeProblem(w, e, http.StatusNotFound)
}
