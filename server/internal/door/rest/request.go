package restdoor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/restreg"
)

const (
	// maxBody is the size from which on a body is too large.
	maxBody = 5000
	// bodyTimeout bounds the time to receive a body.
	bodyTimeout = 60 * time.Second
)

// request is one request with what was found out about it.
type request struct {
	http   *http.Request
	w      http.ResponseWriter
	method string // HEAD is GET
	path   string // as it was sent
	query  url.Values
	body   []byte
	object map[string]any // the body; empty when it is no object
	txn    string
	base   string // scheme and host of the request

	// Known once the request is authenticated.
	tenant    string // as the request names it
	namespace string
	by        restreg.Author
	created   time.Time // of the account
}

// request begins one: with its id, which is told whatever comes of it.
func (d *Door) request(w http.ResponseWriter, r *http.Request) *request {
	q := &request{http: r, w: w, method: r.Method, path: rawPath(r), txn: d.transaction(), base: d.base(r)}
	if q.method == http.MethodHead {
		q.method = http.MethodGet
	}
	q.query, _ = url.ParseQuery(r.URL.RawQuery) // what is malformed is as if it were not there
	w.Header().Set("X-Response-Id", q.txn)
	return q
}

// transaction makes the id of a transaction.
func (d *Door) transaction() string {
	return fmt.Sprintf(".rh-%s.h-telford.r-%s.c-%d.ts-%d.v-0.1", letters(4), letters(8), d.counter.Add(1), d.clock.Now().UnixMilli())
}

// letters are random letters and digits.
func letters(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rand.IntN(len(alphabet))] //nolint:gosec // a name for logs, no secret
	}
	return string(b)
}

// base is the URL under which the client reaches the server, without a path.
func (d *Door) base(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || d.cfg.Proxied && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	host := r.Host
	if host == "" {
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = addr.String()
		}
	}
	return scheme + "://" + host
}

// tooLarge reads the body and answers one that is too large.
func (d *Door) tooLarge(q *request) bool {
	control := http.NewResponseController(q.w)
	large := q.http.ContentLength >= maxBody
	if !large {
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // without it the server's own bounds hold
		var b bytes.Buffer
		n, err := io.CopyN(&b, q.http.Body, maxBody)
		_ = control.SetReadDeadline(time.Time{})
		if err == nil && n == maxBody {
			large = true
		}
		q.body = b.Bytes()
		if err != nil && err != io.EOF { //nolint:errorlint // CopyN returns io.EOF itself
			q.body = append(q.body, 0) // what is cut is not taken for what is whole
		}
	}
	if large {
		h := q.w.Header()
		h.Set("Connection", "close")
		h.Set("Content-Length", "0")
		q.w.WriteHeader(http.StatusRequestEntityTooLarge)
	}
	return large
}

// parse looks at the content type and reads the body.
func (q *request) parse() *rest.Fault {
	if given := q.http.Header.Get("Content-Type"); given != "" {
		kind, _, _ := strings.Cut(given, ";")
		if !equalFold(strings.Trim(kind, " \t"), "application/json") {
			return badRequest("Unsupported content type: " + given)
		}
	}
	q.object = map[string]any{}
	if len(q.body) == 0 {
		return nil
	}
	var v any
	decoder := json.NewDecoder(bytes.NewReader(q.body))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return badRequest("Failed to parse request body: " + err.Error())
	}
	if _, err := decoder.Token(); err != io.EOF {
		return badRequest("Failed to parse request body: there is something behind the value")
	}
	if falsy(v) {
		return badRequest("Empty Request Body")
	}
	if object, ok := v.(map[string]any); ok {
		q.object = object
	}
	return nil
}

// falsy reports whether a value counts as nothing.
func falsy(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case json.Number:
		n, err := strconv.ParseFloat(string(v), 64)
		return err == nil && n == 0
	}
	return false
}

// one returns a parameter of the query of which there may be one. several: it was given
// more than once.
func (q *request) one(name string) (value string, given, several bool) {
	list := q.query[name]
	if len(list) == 0 {
		return "", false, false
	}
	return list[0], true, len(list) > 1
}
