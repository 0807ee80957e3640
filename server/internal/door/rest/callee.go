package restdoor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/callmeta"
)

// The bounds of calls to services over HTTP.
const (
	dialTimeout   = 5 * time.Second
	perCallee     = 256 // connections at once
	idlePerCallee = 64
	idleTimeout   = 90 * time.Second
	maxAnswerHead = 64 << 10 // bytes of an answer's header
	maxReason     = 1024     // bytes of a failure's text that are handed on
)

// metaPrefix stands before the names of a call's own headers.
const metaPrefix = "Telford-Meta-"

// Callees calls services that were registered here and say where they are. It owns the
// connections to them; Close ends the idle ones.
type Callees struct {
	client *http.Client
}

// NewCallees returns Callees without a connection. Redirects are not followed, and no
// proxy is used.
func NewCallees() *Callees {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: reachable}
	return &Callees{client: &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxConnsPerHost: perCallee, MaxIdleConnsPerHost: idlePerCallee,
			IdleConnTimeout: idleTimeout, DisableCompression: true, MaxResponseHeaderBytes: maxAnswerHead,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close ends the connections on which nothing runs.
func (c *Callees) Close() { c.client.CloseIdleConnections() }

// errForbidden refuses addresses at which no service can be: what is told apart there
// is the host itself, such as the metadata of a cloud machine.
var errForbidden = errors.New("services are not called at link-local, multicast and wildcard addresses")

// reachable refuses addresses after their names were resolved.
func reachable(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := at.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return errForbidden
	}
	return nil
}

// Link is the way to the service at an address, host and port.
func (c *Callees) Link(address string) message.Link { return &callee{callees: c, address: address} }

// callee delivers calls to one service over HTTP.
type callee struct {
	callees *Callees
	address string
}

// Call implements message.Link: POST /METHOD with the body as JSON.
func (c *callee) Call(ctx context.Context, call *message.Call) (*message.Reply, error) {
	operation := "call " + call.Service + "/" + call.Method
	if call.ContentType != message.JSON && call.ContentType != message.None {
		return nil, errs.New(errs.InvalidArgument, "the service at %s takes JSON only, and the call is %s", c.address, call.ContentType).Unstarted().In(component, operation)
	}
	if !call.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, call.Deadline)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+"/"+call.Method, bytes.NewReader(call.Body))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "the address %s of the service: %w", c.address, err).Unstarted().In(component, operation)
	}
	setHeaders(ctx, req.Header, call)
	res, err := c.callees.client.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err).In(component, operation)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, message.MaxPayload+1))
	if err != nil {
		return nil, c.lost(ctx, err).In(component, operation)
	}
	if e := message.CheckPayload(len(body)); e != nil {
		return nil, errs.New(errs.ResourceExhausted, "the answer of %s is over the limit of %d bytes", c.address, message.MaxPayload).In(component, operation)
	}
	reply, e := c.reply(res, body)
	if e != nil {
		return nil, e.In(component, operation)
	}
	return reply, nil
}

const component = "rest"

// Stream implements message.Link: there are none.
func (c *callee) Stream(_ context.Context, call *message.Call) (message.Stream, error) {
	return nil, errs.New(errs.InvalidArgument, "%s/%s is called over HTTP, where methods have one answer; call it without a stream", call.Service, call.Method).
		Unstarted().In(component, "stream "+call.Service+"/"+call.Method)
}

// setHeaders tells what goes with a call, under the names that the HTTP door reads.
func setHeaders(ctx context.Context, h http.Header, call *message.Call) {
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json")
	h.Set("User-Agent", "telford")
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set(callmeta.RequestID, call.RequestID)
	set(callmeta.ChainRoot, call.ChainRoot)
	set(callmeta.Chain, strings.Join(call.Chain, ","))
	set(callmeta.IdempotencyKey, call.IdempotencyKey)
	set(callmeta.BusinessKey, call.BusinessKey)
	set(callmeta.Traceparent, callmeta.FormatTraceparent(&call.Trace))
	if call.Trace.Valid() {
		set(callmeta.Tracestate, call.Trace.State)
	}
	set("Telford-Caller", call.Caller.Service)
	set("Telford-Caller-Instance", call.Caller.Instance)
	set("Telford-Namespace", call.Caller.Namespace)
	if call.Attempt > 0 {
		h.Set(callmeta.Attempt, strconv.Itoa(call.Attempt))
	}
	if deadline, ok := ctx.Deadline(); ok {
		h.Set("Telford-Timeout", max(time.Until(deadline), time.Millisecond).Round(time.Millisecond).String())
	}
	for _, p := range call.Headers {
		if v := string(p.Value); utf8.ValidString(v) && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			h.Add(metaPrefix+p.Key, v)
		}
	}
}

// lost says what became of a request that has no answer.
func (c *callee) lost(ctx context.Context, err error) *errs.Error {
	var op *net.OpError
	var dns *net.DNSError
	dialed := errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) || errors.Is(err, errForbidden)
	switch {
	case dialed && ctx.Err() == nil:
		return errs.New(errs.Unavailable, "the service at %s cannot be reached: %w", c.address, err).Unstarted()
	case errors.Is(ctx.Err(), context.Canceled):
		return errs.New(errs.Canceled, "the call was canceled while the service at %s worked on it", c.address)
	case ctx.Err() != nil:
		return errs.New(errs.DeadlineExceeded, "the service at %s has not answered in time", c.address)
	}
	return errs.New(errs.Unavailable, "the connection to the service at %s was lost, and whether it has done the work is unknown: %w", c.address, err)
}

// reply reads an answer. The error is that of the path, what the service itself says is
// in the reply.
func (c *callee) reply(res *http.Response, body []byte) (*message.Reply, *errs.Error) {
	reply := &message.Reply{ContentType: message.JSON}
	for name, values := range res.Header {
		if key, ok := strings.CutPrefix(name, metaPrefix); ok {
			for _, v := range values {
				reply.Headers = append(reply.Headers, message.Pair{Key: strings.ToLower(key), Value: []byte(v)})
			}
		}
	}
	if e := message.CheckHeaders(reply.Headers); e != nil {
		return nil, errs.New(errs.ResourceExhausted, "the headers of the answer of %s: %s", c.address, e.Message)
	}
	if res.StatusCode/100 != 2 {
		e := c.refused(res, body)
		if res.Header.Get(callmeta.NotStarted) == "1" {
			return nil, e.Unstarted()
		}
		reply.Err = e
		return reply, nil
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("null")
	}
	if !json.Valid(body) {
		return nil, errs.New(errs.Internal, "the service at %s has answered with %s that is no JSON", c.address, cmp.Or(res.Header.Get("Content-Type"), "a body"))
	}
	reply.Body = body
	return reply, nil
}

// refused is the failure that a service has answered with: the problem of another
// Telford as it is, else by the status.
func (c *callee) refused(res *http.Response, body []byte) *errs.Error {
	var p struct {
		Code      string            `json:"code"`
		Detail    string            `json:"detail"`
		GRPCCode  uint32            `json:"grpc_code"`
		Retryable bool              `json:"retryable"`
		Meta      map[string]string `json:"meta"`
		Type      string            `json:"type"`
		Message   string            `json:"message"`
		Error     string            `json:"error"`
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if strings.HasSuffix(media, "json") {
		_ = json.Unmarshal(body, &p) // where it is another shape, the status speaks
	}
	if media == "application/problem+json" && strings.HasPrefix(p.Type, "urn:telford:error:") && known(errs.Code(p.Code)) {
		e := errs.New(errs.Code(p.Code), "%s", clip(p.Detail))
		e.Retryable, e.Meta = p.Retryable, p.Meta
		if e.Code == errs.Handler {
			e.GRPCCode = codes.Code(p.GRPCCode)
		}
		return e
	}
	reason := cmp.Or(p.Detail, p.Message, p.Error)
	if reason == "" && strings.HasPrefix(media, "text/plain") {
		reason = strings.TrimSpace(string(body))
	}
	if reason == "" {
		reason = http.StatusText(res.StatusCode)
	}
	return errs.New(codeOf(res.StatusCode), "the service at %s has answered %d: %s", c.address, res.StatusCode, clip(reason)).
		With("http_status", strconv.Itoa(res.StatusCode))
}

// known reports whether a code is one of the model.
func known(c errs.Code) bool {
	switch c {
	case errs.InvalidArgument, errs.NotFound, errs.ServiceNotFound, errs.MethodNotFound, errs.NoInstance, errs.AlreadyExists, errs.Conflict,
		errs.PermissionDenied, errs.Unauthenticated, errs.DeadlineExceeded, errs.Canceled, errs.Unavailable, errs.ResourceExhausted,
		errs.DepthExceeded, errs.FailedPrecondition, errs.Terminal, errs.Handler, errs.Internal:
		return true
	}
	return false
}

// codeOf is the code that stands for a status.
func codeOf(status int) errs.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return errs.InvalidArgument
	case http.StatusUnauthorized:
		return errs.Unauthenticated
	case http.StatusForbidden:
		return errs.PermissionDenied
	case http.StatusNotFound, http.StatusGone:
		return errs.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return errs.MethodNotFound
	case http.StatusConflict:
		return errs.Conflict
	case http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return errs.FailedPrecondition
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return errs.ResourceExhausted
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return errs.DeadlineExceeded
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return errs.Unavailable
	}
	return errs.Internal
}

// clip keeps the text of a failure bearable, and text.
func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
