package rest

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

// The defaults of a Client.
const (
	// DefaultTimeout bounds one request, from dialling to the last byte of its answer.
	DefaultTimeout = 20 * time.Second
	// DefaultMaxAnswer is the most bytes of an answer that are read.
	DefaultMaxAnswer = 32 << 20
)

// Option configures a Client in New.
type Option func(*options)

type options struct {
	username, apiKey string
	token, tenant    string
	authURL          string
	http             *http.Client
	timeout          time.Duration
	maxAnswer        int64
	clock            clock.Clock
	log              *slog.Logger
	problems         []string
}

func (o *options) bad(problem string) { o.problems = append(o.problems, problem) }

// WithAPIKey authenticates with a user name and an API key. Of a service key of Telford
// they are its id and its secret.
func WithAPIKey(username, apiKey string) Option {
	return func(o *options) {
		if username == "" || apiKey == "" {
			o.bad("WithAPIKey: the user name or the key is empty")
		}
		o.username, o.apiKey = username, apiKey
	}
}

// WithToken uses a token that was got elsewhere, for the tenant that it belongs to. The
// Client never asks for another one: when the token has ended, requests fail with
// ErrUnauthorized.
func WithToken(token, tenant string) Option {
	return func(o *options) {
		if token == "" || tenant == "" {
			o.bad("WithToken: the token or the tenant is empty")
		}
		o.token, o.tenant = token, tenant
	}
}

// WithTenant uses the account with this number, whichever one the authentication names.
func WithTenant(tenant string) Option {
	return func(o *options) {
		if tenant == "" {
			o.bad("WithTenant: the tenant is empty")
		}
		o.tenant = tenant
	}
}

// WithAuthURL asks for tokens at another host than the registry's: the URL of its root,
// with or without /v2.0 or /v2.0/tokens.
func WithAuthURL(u string) Option { return func(o *options) { o.authURL = u } }

// WithHTTPClient sends requests through a client of the user's: its transport, its jar.
// Redirects are never followed, whatever it says, because a token must not go elsewhere.
// Without it the Client has a transport of its own that keeps connections open.
func WithHTTPClient(h *http.Client) Option {
	return func(o *options) {
		if h == nil {
			o.bad("WithHTTPClient: the client is nil")
		}
		o.http = h
	}
}

// WithTimeout bounds one request; a request that is sent again after a new
// authentication has the time anew. Default: DefaultTimeout.
func WithTimeout(d time.Duration) Option {
	return func(o *options) {
		if d <= 0 {
			o.bad("WithTimeout: " + d.String() + " is no time to wait; leave the option out for the default")
		}
		o.timeout = d
	}
}

// WithMaxAnswer bounds the bytes that are read of one answer. Default: DefaultMaxAnswer.
func WithMaxAnswer(bytes int64) Option {
	return func(o *options) {
		if bytes <= 0 {
			o.bad("WithMaxAnswer: want at least one byte")
		}
		o.maxAnswer = bytes
	}
}

// WithClock judges the life of tokens and paces heartbeats, polls and the cache by
// another clock than that of the machine. Deadlines of requests stay on the machine's.
func WithClock(c clock.Clock) Option {
	return func(o *options) {
		if c == nil {
			o.bad("WithClock: the clock is nil")
		}
		o.clock = c
	}
}

// WithLog logs authentications and what is tried again. Default: nothing is logged.
// Tokens and keys never are.
func WithLog(l *slog.Logger) Option {
	return func(o *options) {
		if l == nil {
			o.bad("WithLog: the logger is nil")
		}
		o.log = l
	}
}

// finish fills in what was not given and returns every mistake at once.
func (o *options) finish() error {
	if o.username == "" && o.token == "" {
		o.bad("there are no credentials: give WithAPIKey or WithToken")
	}
	if o.username != "" && o.token != "" {
		o.bad("WithAPIKey and WithToken exclude each other")
	}
	if strings.ContainsAny(o.tenant, "/?#") {
		o.bad("the tenant " + quote(o.tenant) + " is no part of a path")
	}
	if len(o.problems) > 0 {
		return errs.New(errs.InvalidArgument, "registry client: %s", strings.Join(o.problems, "; "))
	}
	return nil
}

// parseBase reads an http or https URL; what follows its host is cut of the given ends.
func parseBase(what, text string, ends ...string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errs.New(errs.InvalidArgument, "%s: %w", what, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errs.New(errs.InvalidArgument, "%s: %q is not an http or https URL, such as https://registry.example:14444", what, text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, errs.New(errs.InvalidArgument, "%s: %s has more than scheme, host and path", what, u.Redacted())
	}
	path := strings.TrimRight(u.Path, "/")
	for _, end := range ends {
		path = strings.TrimRight(strings.TrimSuffix(path, end), "/")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}, nil
}
