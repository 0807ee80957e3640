package httpdoor

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/callmeta"
	"telford.dev/telford/server/internal/router"
)

// The headers of this door beyond those of callmeta. Headers of the call itself travel
// behind a prefix, so that neither end can set what belongs to HTTP; a key that ends in
// -bin is base64.
const (
	headerTimeoutName = "Telford-Timeout" // a Go duration, such as 1.5s
	headerIdempotency = "Idempotency-Key" // the same as Telford-Idempotency-Key
	headerRequestID   = "Telford-Request-Id"
	headerNotStarted  = "Telford-Not-Started"
	prefixMeta        = "Telford-Meta-"
	prefixTrailer     = "Telford-Trailer-"
)

// request reads everything of a request but its body. The caller must already be known.
func request(r *http.Request) (*message.Call, time.Duration, *errs.Error) {
	call := &message.Call{Service: r.PathValue("service"), Method: r.PathValue("method")}
	if call.Method == "" {
		return nil, 0, errs.New(errs.InvalidArgument, "the path %s names no method; it is /call/{service}/{method}, such as /call/payments/charge", r.URL.Path).Unstarted()
	}
	if err := callmeta.Apply(call, func(name string) []string { return r.Header.Values(name) }); err != nil {
		return call, 0, err
	}
	if err := idempotencyKey(call, r.Header.Values(headerIdempotency)); err != nil {
		return call, 0, err
	}
	ct, err := contentType(r.Header.Values("Content-Type"))
	if err != nil {
		return call, 0, err
	}
	call.ContentType = ct
	if call.Headers, err = metaHeaders(r.Header); err != nil {
		return call, 0, err
	}
	timeout, err := timeoutOf(r.Header.Values(headerTimeoutName))
	return call, timeout, err
}

// idempotencyKey takes the key from the header that HTTP has for it, bare or between
// quotes, which are no part of it.
func idempotencyKey(call *message.Call, values []string) *errs.Error {
	if len(values) == 0 {
		return nil
	}
	key := strings.Join(values, ", ")
	if len(values) == 1 && len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	switch {
	case len(values) > 1:
		return errs.New(errs.InvalidArgument, "header %s was given %d times and may be given once", headerIdempotency, len(values)).Unstarted()
	case key == "":
		return errs.New(errs.InvalidArgument, "header %s is empty: give a key, or leave the header out", headerIdempotency).Unstarted()
	case call.IdempotencyKey != "" && call.IdempotencyKey != key:
		return errs.New(errs.InvalidArgument, "header %s is %q and %s is %q: give one of them", headerIdempotency, short(key), callmeta.IdempotencyKey, short(call.IdempotencyKey)).Unstarted()
	}
	call.IdempotencyKey = key
	return nil
}

// contentType maps Content-Type; none means JSON.
func contentType(values []string) (message.ContentType, *errs.Error) {
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return message.JSON, nil
	}
	if len(values) == 1 {
		if media, _, err := mime.ParseMediaType(values[0]); err == nil {
			switch media {
			case "application/json", "text/json", formType:
				return message.JSON, nil
			case "application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf":
				return message.Proto, nil
			case "application/msgpack", "application/x-msgpack", "application/vnd.msgpack":
				return message.Msgpack, nil
			}
		}
	}
	return message.None, errs.New(errs.InvalidArgument, "content type %q is not understood; send application/json, application/protobuf or application/msgpack", short(strings.Join(values, ", "))).
		Unstarted().With(metaStatus, strconv.Itoa(http.StatusUnsupportedMediaType))
}

// formType is what curl -d says of every body. It is taken for JSON where it is that.
const formType = "application/x-www-form-urlencoded"

// checkForm refuses a body that was sent as a form and is one.
func checkForm(values []string, body []byte) *errs.Error {
	if len(values) != 1 || len(body) == 0 {
		return nil
	}
	media, _, _ := mime.ParseMediaType(values[0]) // which was understood before
	if media != formType || json.Valid(body) {
		return nil
	}
	return errs.New(errs.InvalidArgument, "a body of content type %s is taken only when it is JSON, and this is none: send JSON, or send the header "+
		"Content-Type: application/protobuf or application/msgpack with a body of that (curl: -H 'Content-Type: …' --data-binary @FILE)", formType).
		Unstarted().With(metaStatus, strconv.Itoa(http.StatusUnsupportedMediaType))
}

// metaStatus is a fact by which this door remembers a status that the code alone does
// not tell. It never leaves the door.
const metaStatus = "http.status"

func mediaType(c message.ContentType) string {
	switch c {
	case message.Proto:
		return "application/protobuf"
	case message.Msgpack:
		return "application/msgpack"
	default:
		return "application/json"
	}
}

func timeoutOf(values []string) (time.Duration, *errs.Error) {
	if len(values) == 0 {
		return 0, nil
	}
	text := strings.Join(values, ", ")
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, errs.New(errs.InvalidArgument, "header %s is %q: it must be a positive duration such as 500ms or 5s", headerTimeoutName, short(text)).Unstarted()
	}
	return d, nil
}

func metaHeaders(h http.Header) ([]message.Pair, *errs.Error) {
	var names []string
	for name := range h {
		if len(name) > len(prefixMeta) && strings.HasPrefix(name, prefixMeta) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var pairs []message.Pair
	for _, name := range names {
		key := strings.ToLower(name[len(prefixMeta):])
		if callmeta.Reserved(key) {
			return nil, errs.New(errs.InvalidArgument, "header %s: %s is a name of Telford and cannot be a header of the call", name, key).Unstarted()
		}
		for _, v := range h[name] {
			value := []byte(v)
			if strings.HasSuffix(key, "-bin") {
				var err error
				if value, err = decodeBin(v); err != nil {
					return nil, errs.New(errs.InvalidArgument, "header %s is %q: a name that ends in -bin holds base64: %w", name, short(v), err).Unstarted()
				}
			}
			pairs = append(pairs, message.Pair{Key: key, Value: value})
		}
	}
	return pairs, message.CheckHeaders(pairs)
}

func decodeBin(v string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(v, "="))
}

// setPairs writes headers or trailers of an answer behind prefix.
func setPairs(h http.Header, prefix string, pairs []message.Pair) {
	for _, p := range pairs {
		value := string(p.Value)
		if strings.HasSuffix(p.Key, "-bin") {
			value = base64.StdEncoding.EncodeToString(p.Value)
		}
		h.Add(prefix+p.Key, value)
	}
}

// body reads the body of a request, at most message.MaxPayload bytes and for at most
// bodyTimeout.
func body(w http.ResponseWriter, r *http.Request) ([]byte, *errs.Error) {
	if r.ContentLength > message.MaxPayload {
		linger(w, r, r.Body)
		return nil, message.CheckPayload(int(min(r.ContentLength, 1<<62)))
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer has one
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	var b []byte
	var err error
	whole := r.Body
	if r.ContentLength >= 0 {
		b = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, b)
	} else {
		b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, message.MaxPayload))
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &tooLarge):
		linger(w, r, whole)
		e := message.CheckPayload(message.MaxPayload + 1)
		e.Message = fmt.Sprintf("payload of more than %d bytes is over the limit of %d bytes; send a reference to it instead, or split it", message.MaxPayload, message.MaxPayload)
		return nil, e
	default:
		return nil, errs.New(errs.InvalidArgument, "the body ended early: %w", err).Unstarted().
			With(metaStatus, strconv.Itoa(http.StatusRequestTimeout))
	}
}

// lingerTimeout and lingerBytes bound how much of a body that is too large is taken in
// after all.
const (
	lingerTimeout = 5 * time.Second
	lingerBytes   = 2 * message.MaxPayload
)

// linger takes in the rest of a body that is refused: who still writes when the
// connection closes finds an error of the network in place of the answer.
func linger(w http.ResponseWriter, r *http.Request, body io.Reader) {
	if r.ContentLength > lingerBytes || r.Header.Get("Expect") != "" {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerTimeout)) // not every writer has one
	_, _ = io.CopyN(io.Discard, body, lingerBytes)                                   // as far as it goes
}

// routed makes the request to the router.
func (s *Server) routed(call *message.Call) *router.Request {
	return &router.Request{Namespace: call.Caller.Namespace, Zone: s.cfg.Zone, Caller: call.Caller, Call: call}
}

// fail answers a request that failed.
func fail(w http.ResponseWriter, err error) {
	e := errs.From(err)
	status := Status(e)
	if text, ok := e.Meta[metaStatus]; ok {
		if n, err := strconv.Atoi(text); err == nil {
			status = n
		}
		c := *e
		c.Meta = nil
		e = &c
	}
	writeProblem(w, e, status)
}

func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
