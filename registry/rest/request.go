package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"unicode/utf8"

	"telford.dev/telford/internal/errs"
)

// request is one request to the API.
type request struct {
	op     string // what is being done, for errors
	method string
	path   string // behind the tenant, escaped
	query  url.Values
	body   any // nil: none
}

// do sends a request with a token, once more with a new one when the first was refused,
// and decodes the answer into what is not nil.
func (c *Client) do(ctx context.Context, r request, into any) error {
	err := c.try(ctx, r, into)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	return nil
}

func (c *Client) try(ctx context.Context, r request, into any) error {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return errs.New(errs.InvalidArgument, "encode the body: %w", err)
		}
	}
	tok, err := c.tokens.get(ctx, nil)
	if err != nil {
		return err
	}
	err = c.send(ctx, r, tok, body, into)
	if !errors.Is(err, ErrUnauthorized) || c.tokens.fixed() {
		return err
	}
	if tok, err = c.tokens.get(ctx, tok); err != nil {
		return err
	}
	return c.send(ctx, r, tok, body, into)
}

func (c *Client) send(ctx context.Context, r request, tok *token, body []byte, into any) error {
	target := c.api + "/" + url.PathEscape(tok.tenant) + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	h := http.Header{"X-Auth-Token": {tok.id}, "X-Tenant-Id": {tok.tenant}}
	return c.exchange(ctx, r.method, target, h, body, into)
}

// exchange sends one request and reads its whole answer. A failure that the server
// answered with is a *Fault; everything else is an error of Telford's codes.
func (c *Client) exchange(ctx context.Context, method, target string, h http.Header, body []byte, into any) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(bounded, method, target, reader)
	if err != nil {
		return errs.New(errs.InvalidArgument, "%w", err)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "telford-registry-rest")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.failed(ctx, bounded, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, c.maxAnswer+1))
	if err != nil {
		return c.failed(ctx, bounded, fmt.Errorf("read the answer: %w", err))
	}
	return decode(resp.StatusCode, answer, c.maxAnswer, into)
}

// failed names why no answer came: the caller's context, our own bound, or the network.
func (c *Client) failed(ctx, bounded context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return errs.From(ctx.Err()).WithCause(err)
	case bounded.Err() != nil:
		return errs.New(errs.Unavailable, "no answer from the registry in %s", c.timeout)
	default:
		return errs.New(errs.Unavailable, "%w", err)
	}
}

// decode reads an answer of the registry.
func decode(status int, answer []byte, most int64, into any) error {
	switch {
	case int64(len(answer)) > most:
		return errs.New(errs.ResourceExhausted, "the answer is larger than %d bytes; ask for smaller pages, or raise WithMaxAnswer", most)
	case status >= 200 && status < 300:
	case status >= 300 && status < 400:
		return errs.New(errs.FailedPrecondition, "the server answered %d: redirects are not followed; is the base URL that of the registry?", status)
	default:
		return decodeFault(status, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return errs.New(errs.Internal, "the answer is not what the API promises: %w: %s", err, excerpt(answer))
	}
	return nil
}

// decodeFault reads the fault of an answer, or makes one from its status where the body
// is none: proxies on the way answer with pages of their own.
func decodeFault(status int, answer []byte) *Fault {
	f := &Fault{}
	if json.Unmarshal(answer, f) == nil && f.Type != "" {
		f.Code = status
		return f
	}
	f = &Fault{Type: faultOf(status), Code: status, Message: http.StatusText(status)}
	if f.Message == "" {
		f.Message = "unknown status"
	}
	if len(answer) > 0 {
		f.Details = excerpt(answer)
	}
	return f
}

// faultOf is the type that a status without a fault stands for.
func faultOf(status int) FaultType {
	switch status {
	case http.StatusUnauthorized:
		return FaultUnauthorized
	case http.StatusForbidden:
		return FaultForbidden
	case http.StatusNotFound:
		return FaultNotFound
	case http.StatusRequestEntityTooLarge:
		return FaultRequestTooLarge
	case http.StatusTooManyRequests:
		return FaultRateLimit
	case http.StatusNotImplemented:
		return FaultNotImplemented
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return FaultSystemFailure
	}
	if status >= 500 {
		return FaultInternal
	}
	return FaultBadRequest
}

// excerpt is the beginning of an answer as readable text.
func excerpt(answer []byte) string {
	const most = 200
	cut := answer
	if len(cut) > most {
		cut = cut[:most]
	}
	text := quote(string(bytes.ToValidUTF8(cut, []byte(string(utf8.RuneError)))))
	if len(answer) > most {
		text += "…"
	}
	return text
}

// away reports whether err says that the registry could not be asked, so that what was
// known before is the best there is.
func away(err error) bool {
	var f *Fault
	if errors.As(err, &f) {
		return f.Code >= 500
	}
	return errors.Is(err, &errs.Error{Code: errs.Unavailable}) || errors.Is(err, context.DeadlineExceeded)
}

// uncertain reports whether a request that failed with err may have been done all the
// same.
func uncertain(err error) bool {
	var f *Fault
	return !errors.As(err, &f) || f.Code >= 500
}
