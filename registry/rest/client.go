package rest

import (
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"telford.dev/telford/internal/clock"
)

// Client talks to one account of a registry. It is safe for use by many goroutines,
// which share its connections and its token.
type Client struct {
	api       string // the URL before the tenant
	http      *http.Client
	timeout   time.Duration
	maxAnswer int64
	tokens    *tokens
	clock     clock.Clock
	log       *slog.Logger
}

// New returns a Client of the registry at baseURL: its root, with or without /v1.0. It
// sends nothing yet. The error names every mistake in the options.
func New(baseURL string, opts ...Option) (*Client, error) {
	o := &options{
		timeout: DefaultTimeout, maxAnswer: DefaultMaxAnswer, clock: clock.Real(), log: slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(o)
	}
	if err := o.finish(); err != nil {
		return nil, err
	}
	base, err := parseBase("base URL", baseURL, "/v1.0")
	if err != nil {
		return nil, err
	}
	c := &Client{
		api: base.String() + "/v1.0", timeout: o.timeout, maxAnswer: o.maxAnswer, clock: o.clock, log: o.log,
		http: httpClient(o.http),
	}
	root := base
	if o.authURL != "" {
		if root, err = parseBase("auth URL", o.authURL, "/v2.0/tokens", "/v2.0"); err != nil {
			return nil, err
		}
	}
	c.tokens = &tokens{client: c, url: root.String() + "/v2.0/tokens", username: o.username, apiKey: o.apiKey, tenant: o.tenant}
	if o.token != "" {
		c.tokens.current = &token{id: o.token, tenant: o.tenant}
	}
	return c, nil
}

// Close closes the connections that are idle. Requests may still be made, over new ones.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// httpClient returns a client that follows no redirects, by the transport of the user's
// or by one that keeps as many connections as heartbeats and polls need.
func httpClient(given *http.Client) *http.Client {
	h := &http.Client{}
	if given != nil {
		*h = *given
	} else {
		h.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       3 * time.Minute, // longer than the longest interval of a heartbeat
			ExpectContinueTimeout: time.Second,
		}
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return h
}

func quote(s string) string { return strconv.Quote(s) }
