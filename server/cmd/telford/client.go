package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds what is read of one answer: a page of 1000 items, or a call's
// answer of 16 MiB in JSON, fits.
const maxAnswer = 64 << 20

// client talks to the HTTP address of a runtime.
type client struct {
	app *app
}

func (a *app) client() *client { return &client{app: a} }

// apiError is a failure that the runtime answered with.
type apiError struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (e *apiError) Error() string {
	if e.Code == "" {
		return e.Detail
	}
	return e.Code + ": " + e.Detail
}

func (c *client) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.roundTrip(ctx, http.MethodGet, path, nil)
}

func (c *client) post(ctx context.Context, path string, body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return c.roundTrip(ctx, http.MethodPost, path, encoded)
}

func (c *client) remove(ctx context.Context, path string, query url.Values) ([]byte, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.roundTrip(ctx, http.MethodDelete, path, nil)
}

// roundTrip sends one request and reads its whole answer.
func (c *client) roundTrip(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return nil, err
	}
	return read(resp)
}

// read reads a whole answer and closes it.
func read(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Redacted(), err)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("the answer of %s is larger than %d bytes", resp.Request.URL.Redacted(), maxAnswer)
	}
	return answer, nil
}

// send sends one request and, when it is the first, shows the alarms of the runtime; a
// status of failure comes back as *apiError. The caller closes the body.
func (c *client) send(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	resp, err := c.exchange(ctx, method, path, body, header)
	var answered *apiError
	if err == nil || errors.As(err, &answered) {
		c.app.showAlarms(ctx)
	}
	return resp, err
}

// exchange is send without alarms.
func (c *client) exchange(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	base, guess, err := c.base()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	hc := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableKeepAlives: true,
		Proxy:             http.ProxyFromEnvironment,
	}}
	do := func(base string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
		if err != nil {
			return nil, usagef("--server: %w", err)
		}
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		for k, v := range header {
			req.Header[k] = v
		}
		return hc.Do(req)
	}
	resp, err := do(base)
	if guess && speaksPlain(err) {
		resp, err = do("http" + strings.TrimPrefix(base, "https"))
	}
	if err != nil {
		return nil, c.explain(base, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failure(resp)
}

// httpClient returns a client for many requests that keeps its connections, and the URL
// of the runtime. Where the scheme of that is a guess, plain HTTP is tried after TLS.
func (c *client) httpClient() (*http.Client, string, error) {
	base, guess, err := c.base()
	if err != nil {
		return nil, "", err
	}
	roots, err := c.roots()
	if err != nil {
		return nil, "", err
	}
	var t http.RoundTripper = &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     3 * time.Minute,
		Proxy:               http.ProxyFromEnvironment,
	}
	if guess {
		t = &guessing{RoundTripper: t}
	}
	return &http.Client{Transport: t}, base, nil
}

// guessing sends what TLS is not spoken for by plain HTTP, and from then on at once.
type guessing struct {
	http.RoundTripper
	plain atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (g *guessing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !g.plain.Load() {
		resp, err := g.RoundTripper.RoundTrip(req)
		if !speaksPlain(err) {
			return resp, err
		}
		g.plain.Store(true)
	}
	again := req.Clone(req.Context())
	again.URL.Scheme = "http"
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		again.Body = body
	}
	return g.RoundTripper.RoundTrip(again)
}

// CloseIdleConnections closes those of the transport.
func (g *guessing) CloseIdleConnections() {
	if t, ok := g.RoundTripper.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}

// speaksPlain reports whether err says that a server of plain HTTP was met with TLS.
func speaksPlain(err error) bool {
	if err == nil {
		return false
	}
	var record tls.RecordHeaderError
	return errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// failure reads problem details, or makes do with the status.
func failure(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	e := &apiError{}
	if json.Unmarshal(body, e) != nil || e.Detail == "" {
		e = &apiError{Detail: fmt.Sprintf("%s answered %s: %s", resp.Request.URL.Redacted(), resp.Status, bytes.TrimSpace(body))}
	}
	e.Status = resp.StatusCode
	return e
}

// explain says what to do about a request that did not arrive.
func (c *client) explain(base string, err error) error {
	var usage usageError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &usage), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &unknown):
		return fmt.Errorf("%w\nThe runtime's certificate comes from its private CA: name its data directory with --data, or its root with --ca", err)
	case speaksPlain(err):
		return fmt.Errorf("%s speaks plain HTTP: write the address as http://…", base)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s in time", base)
	default:
		return fmt.Errorf("%w\nIs a runtime up there? Name its HTTP address with --server or TELFORD_HTTP", err)
	}
}

// base returns the URL of the runtime, and whether its scheme is a guess that plain
// HTTP may replace, which is allowed on loopback only.
func (c *client) base() (string, bool, error) {
	text := strings.TrimRight(c.app.global.server, "/")
	if text == "" {
		text = c.published()
	}
	if text == "" {
		text = "127.0.0.1:14444"
	}
	if !strings.Contains(text, "://") {
		host, _, err := net.SplitHostPort(text)
		if err != nil {
			return "", false, usagef("--server: %q is not an address; write HOST:PORT or a URL", text)
		}
		ip := net.ParseIP(host)
		return "https://" + text, host == "localhost" || ip != nil && ip.IsLoopback(), nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false, usagef("--server: %q is not an http or https URL", text)
	}
	return text, false, nil
}

// published is the URL that a runtime on this host left in its data directory.
func (c *client) published() string {
	text, err := os.ReadFile(filepath.Join(c.app.global.data, "http.url"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (c *client) token() (string, error) {
	if t := c.app.global.token; t != "" {
		return t, nil
	}
	if t := c.app.getenv("TELFORD_TOKEN"); t != "" {
		return t, nil
	}
	path := filepath.Join(c.app.global.data, "admin.token")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("no credential: %w\nGive --token or TELFORD_TOKEN, or name the data directory of a runtime on this host with --data or TELFORD_DATA", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// roots returns the system's roots and those of --ca or the data directory.
func (c *client) roots() (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	path := c.app.global.ca
	if path == "" {
		path = filepath.Join(c.app.global.data, "ca.crt")
	}
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
	case c.app.global.ca == "":
		return pool, nil
	default:
		return nil, fmt.Errorf("--ca: %w", err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}
