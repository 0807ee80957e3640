package rest_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	telford "telford.dev/telford"
	"telford.dev/telford/registry/rest"
)

// TestFaults: what the registry answers comes out as typed errors.
func TestFaults(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		is     error
		also   error
		want   rest.Fault
	}{
		"not found": {404, fixture(t, "response/services-not-found-get.json"), rest.ErrNotFound, telford.ErrNotFound, rest.Fault{
			Type: "notFoundError", Code: 404, Message: "object does not exist",
			Details: `Object "Service" with key "my-service-1" does not exist`, TxnID: ".rh-qyek.h-farscape.r-q3i5psGp.c-3.ts-1347320188220.v-0.1",
		}},
		"unknown route": {
			404, `{"type":"notFoundError","code":404,"message":"The page cannot be found.","details":{"requested_path":"/v1.0/7777/x"},"txnId":"t"}`,
			rest.ErrNotFound, telford.ErrNotFound,
			rest.Fault{Type: "notFoundError", Code: 404, Message: "The page cannot be found.", RequestedPath: "/v1.0/7777/x", TxnID: "t"},
		},
		"no details":        {400, `{"type":"badRequest","code":400,"message":"URI malformed","txnId":"t"}`, rest.ErrBadRequest, telford.ErrInvalidArgument, rest.Fault{Type: "badRequest", Code: 400, Message: "URI malformed", TxnID: "t"}},
		"exists":            {400, `{"type":"serviceWithThisIdExists","code":400,"message":"m","details":"m"}`, rest.ErrServiceExists, telford.ErrAlreadyExists, rest.Fault{Type: "serviceWithThisIdExists", Code: 400, Message: "m", Details: "m"}},
		"limit":             {400, `{"type":"limitReached","code":400,"message":"m","details":"d"}`, rest.ErrLimitReached, telford.ErrResourceExhausted, rest.Fault{Type: "limitReached", Code: 400, Message: "m", Details: "d"}},
		"page size":         {400, `{"type":"invalidLimit","code":400,"message":"m","details":"d"}`, rest.ErrInvalidLimit, telford.ErrInvalidArgument, rest.Fault{Type: "invalidLimit", Code: 400, Message: "m", Details: "d"}},
		"rate":              {400, `{"type":"rateLimitReached","code":400,"message":"m","details":"d"}`, rest.ErrRateLimit, telford.ErrResourceExhausted, rest.Fault{Type: "rateLimitReached", Code: 400, Message: "m", Details: "d"}},
		"internal":          {500, `{"type":"internalError","code":500,"message":"m","details":"d"}`, rest.ErrInternal, telford.ErrInternal, rest.Fault{Type: "internalError", Code: 500, Message: "m", Details: "d"}},
		"details of a kind": {400, `{"type":"badRequest","code":400,"message":"m","details":[1]}`, rest.ErrBadRequest, nil, rest.Fault{Type: "badRequest", Code: 400, Message: "m", Details: "[1]"}},
		"413 without body":  {413, "", rest.ErrRequestTooLarge, telford.ErrInvalidArgument, rest.Fault{Type: "requestTooLargeError", Code: 413, Message: "Request Entity Too Large"}},
		"a proxy's page":    {502, "<html>\xff", rest.ErrSystemFailure, telford.ErrUnavailable, rest.Fault{Type: "systemFailureError", Code: 502, Message: "Bad Gateway", Details: `"<html>` + "\uFFFD" + `"`}},
		"another JSON":      {403, `{"error":"no"}`, rest.ErrForbidden, telford.ErrPermissionDenied, rest.Fault{Type: "forbiddenError", Code: 403, Message: "Forbidden", Details: `"{\"error\":\"no\"}"`}},
		"not implemented":   {501, "", rest.ErrNotImplemented, telford.ErrFailedPrecondition, rest.Fault{Type: "notImplementedError", Code: 501, Message: "Not Implemented"}},
		"unknown status":    {599, "", rest.ErrInternal, nil, rest.Fault{Type: "internalError", Code: 599, Message: "unknown status"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newCanned(t, withToken(func(received) answer { return answer{status: test.status, body: test.body} }))
			_, err := newClient(t, srv.URL).GetService(t.Context(), "abc")
			var f *rest.Fault
			if !errors.As(err, &f) {
				t.Fatalf("got %v, want a fault", err)
			}
			if diff := cmp.Diff(test.want, *f); diff != "" {
				t.Errorf("fault (-want +got):\n%s", diff)
			}
			if !errors.Is(err, test.is) || test.also != nil && !errors.Is(err, test.also) {
				t.Errorf("%v is not %v and %v", err, test.is, test.also)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, &rest.Fault{Type: f.Type, Message: "other"}) {
				t.Errorf("%v is more than it is", err)
			}
			var e *telford.Error
			if test.also != nil && (!errors.As(err, &e) || !errors.Is(e, test.also)) {
				t.Errorf("as a telford.Error it is %v", e)
			}
			if !strings.HasPrefix(err.Error(), "get service abc: ") {
				t.Errorf("%q does not say what was done", err)
			}
		})
	}
}

// TestFaultsSurviveTheWire: what the server writes the client reads.
func TestFaultsSurviveTheWire(t *testing.T) {
	t.Parallel()
	for _, f := range []*rest.Fault{
		rest.NewFault(rest.FaultServiceExists, "Service with id a already exists.", "Service with id a already exists."),
		{Type: rest.FaultNotFound, Code: 404, Message: "The page cannot be found.", RequestedPath: "/v1.0/1/x", TxnID: "t"},
		rest.NewFault(rest.FaultInternal, "Internal Error", ""),
	} {
		text, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got rest.Fault
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, &got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	text, _ := json.Marshal(rest.NewFault(rest.FaultNotFound, "object does not exist", "d"))
	if want := `{"type":"notFoundError","code":404,"message":"object does not exist","details":"d","txnId":""}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if s := rest.FaultType("other").Status(); s != 500 {
		t.Errorf("an unknown type has status %d", s)
	}
}

// TestBadAnswers: what is no answer of the API says so.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer answer
		want   string
		is     error
	}{
		"empty":     {answer{status: 200}, "not what the API promises", telford.ErrInternal},
		"no JSON":   {answer{status: 200, body: "<html>"}, `"<html>"`, telford.ErrInternal},
		"a list":    {answer{status: 200, body: "[]"}, "not what the API promises", telford.ErrInternal},
		"timeout":   {answer{status: 200, body: `{"heartbeat_timeout":-1}`}, "heartbeat_timeout -1 is no number of seconds", telford.ErrInternal},
		"overflow":  {answer{status: 200, body: `{"heartbeat_timeout":9223372036854775807}`}, "is no number of seconds", telford.ErrInternal},
		"tags":      {answer{status: 200, body: `{"tags":{}}`}, "not what the API promises", telford.ErrInternal},
		"too large": {answer{status: 200, body: strings.Repeat(" ", 5000)}, "larger than 4096 bytes", telford.ErrResourceExhausted},
		"moved":     {answer{status: 302, header: map[string][]string{"Location": {"http://127.0.0.1:1/"}}}, "redirects are not followed", telford.ErrFailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newCanned(t, withToken(func(received) answer { return test.answer }))
			_, err := newClient(t, srv.URL, rest.WithMaxAnswer(4096)).GetService(t.Context(), "abc")
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v that says %q", err, test.is, test.want)
			}
		})
	}
	srv := newCanned(t, withToken(func(received) answer { return answer{status: 201, body: "{}"} }))
	if _, err := newClient(t, srv.URL).CreateService(t.Context(), db1()); err == nil || !strings.Contains(err.Error(), "the answer has no token") {
		t.Errorf("got %v for a creation without a token", err)
	}
	srv.Close()
	if _, err := newClient(t, srv.URL).Limits(t.Context()); !errors.Is(err, telford.ErrUnavailable) {
		t.Errorf("got %v from a server that is gone, want unavailable", err)
	}
}
