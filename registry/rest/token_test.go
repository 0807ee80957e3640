package rest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	telford "telford.dev/telford"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/registry/rest"
)

const unauthorized = `{"type":"unauthorizedError","code":401,"message":"forbidden","details":"Invalid or expired authentication token","txnId":"t"}`

// TestAuthentication compares the request for a token and reads the tenant from each
// place that servers have it in.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ body, tenant string }{
		"token":       {access("dev", "2999-01-01T00:00:00.000-05:00"), "7777"},
		"tenant id":   {`{"access":{"token":{"id":"dev"},"serviceCatalog":[{"name":"x","endpoints":[]},{"name":"cloudServers","endpoints":[{"tenantId":"11"}]}]}}`, "11"},
		"public URL":  {`{"access":{"token":{"id":"dev"},"serviceCatalog":[{"name":"cloudMonitoring","endpoints":[{"publicURL":"https://h/v1.0/22"}]}]}}`, "22"},
		"precedence":  {`{"access":{"token":{"id":"dev"},"serviceCatalog":[{"name":"cloudMonitoring","endpoints":[{"tenantId":"2"}]},{"name":"cloudServers","endpoints":[{"tenantId":"1"}]}]}}`, "1"},
		"no end":      {`{"access":{"token":{"id":"dev","expires":"soon","tenant":{"id":"33"}}}}`, "33"},
		"not a digit": {`{"access":{"token":{"id":"dev","tenant":{"id":"acme"}}}}`, "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newCanned(t, func(r received) answer {
				if r.URI == authPath {
					return answer{status: 203, body: test.body}
				}
				return answer{status: 200, body: `{}`}
			})
			if _, err := newClient(t, srv.URL).Limits(t.Context()); err != nil {
				t.Fatal(err)
			}
			requests, _ := srv.api()
			if want := "/v1.0/" + test.tenant + "/limits"; len(requests) != 1 || requests[0].URI != want || requests[0].Header.Get("X-Tenant-Id") != test.tenant {
				t.Errorf("sent %v, want %s", requests, want)
			}
			auth := srv.requests[0]
			if auth.Method != http.MethodPost || auth.Body != authBody || auth.Header.Get("Content-Type") != "application/json" || auth.Header.Get("X-Auth-Token") != "" {
				t.Errorf("asked for a token by %+v", auth)
			}
		})
	}
}

// TestBadAuthentications say what is wrong, and that it is the authentication.
func TestBadAuthentications(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer answer
		want   string
		is     error
	}{
		"refused":   {answer{status: 401, body: `{"unauthorized":{"code":401,"message":"no"}}`}, `authenticate as "joe": 401`, rest.ErrUnauthorized},
		"down":      {answer{status: 503}, `authenticate as "joe": 503`, telford.ErrUnavailable},
		"no token":  {answer{status: 200, body: `{"access":{}}`}, "no access.token.id", telford.ErrInternal},
		"no tenant": {answer{status: 200, body: `{"access":{"token":{"id":"dev"},"serviceCatalog":[{"name":"cloudServers","endpoints":[{"publicURL":"http://h/"}]}]}}`}, "give it with WithTenant", telford.ErrInternal},
		"bad":       {answer{status: 200, body: `{"access":[]}`}, "not what the API promises", telford.ErrInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := newCanned(t, func(received) answer { return test.answer })
			_, err := newClient(t, srv.URL).Limits(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.is) || strings.Contains(err.Error(), `"dev"`) {
				t.Errorf("got %v, want %v that says %q and no key", err, test.is, test.want)
			}
			if requests, _ := srv.api(); len(requests) > 0 {
				t.Errorf("sent %v without a token", requests)
			}
		})
	}
}

// tokenServer refuses every token but the last one that it gave.
func tokenServer(t *testing.T) (srv *canned, purge func()) {
	t.Helper()
	var given, good atomic.Int64
	srv = newCanned(t, func(r received) answer {
		if r.URI == authPath {
			good.Store(given.Add(1))
			return answer{status: 200, body: access(fmt.Sprint("token-", given.Load()), "2999-01-01T00:00:00.000-05:00")}
		}
		if r.Header.Get("X-Auth-Token") != fmt.Sprint("token-", good.Load()) {
			return answer{status: 401, body: unauthorized}
		}
		return answer{status: 200, body: `{}`}
	})
	return srv, func() { good.Store(0) }
}

// TestOneAuthenticationForAll: callers who are refused at the same time share one new
// token, and each repeats its request once.
func TestOneAuthenticationForAll(t *testing.T) {
	t.Parallel()
	srv, purge := tokenServer(t)
	c := newClient(t, srv.URL)
	const callers = 50
	for round := 1; round <= 3; round++ {
		purge()
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				if _, err := c.Limits(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, auths := srv.api(); auths != round {
			t.Fatalf("%d authentications after %d losses of the token", auths, round)
		}
	}
	requests, _ := srv.api()
	if len(requests) > 3*callers+2*callers {
		t.Errorf("%d requests of %d callers: one is repeated more than once", len(requests), 3*callers)
	}
}

// TestRepeatedOnceOnly: a registry that refuses every token is asked twice, and the
// error says what it said.
func TestRepeatedOnceOnly(t *testing.T) {
	t.Parallel()
	srv := newCanned(t, withToken(func(received) answer { return answer{status: 401, body: unauthorized} }))
	_, err := newClient(t, srv.URL).CreateService(t.Context(), db1())
	if !errors.Is(err, rest.ErrUnauthorized) || !strings.Contains(err.Error(), "Invalid or expired") {
		t.Errorf("got %v", err)
	}
	requests, auths := srv.api()
	if len(requests) != 2 || auths != 2 || requests[0].Body == "" || requests[0].Body != requests[1].Body {
		t.Errorf("%d authentications and %v, want the same request twice", auths, requests)
	}
}

func TestFixedToken(t *testing.T) {
	t.Parallel()
	srv := newCanned(t, func(received) answer { return answer{status: 401, body: unauthorized} })
	c, err := rest.New(srv.URL, rest.WithToken("mine", "42"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Limits(t.Context()); !errors.Is(err, rest.ErrUnauthorized) {
		t.Errorf("got %v", err)
	}
	requests, auths := srv.api()
	if len(requests) != 1 || auths != 0 || requests[0].Header.Get("X-Auth-Token") != "mine" || requests[0].URI != "/v1.0/42/limits" {
		t.Errorf("%d authentications and %v", auths, requests)
	}
}

// TestRenewal: a token is renewed before its end; one that cannot be renewed is used to
// its end.
func TestRenewal(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	clk := clock.NewManual(start)
	var given, down atomic.Int64
	srv := newCanned(t, func(r received) answer {
		switch {
		case r.URI != authPath:
			return answer{status: 200, body: `{}`}
		case down.Load() > 0:
			return answer{status: 503}
		default:
			end := clk.Now().Add(100 * time.Minute).In(time.FixedZone("", -5*3600))
			return answer{status: 200, body: access(fmt.Sprint("token-", given.Add(1)), end.Format("2006-01-02T15:04:05.000-07:00"))}
		}
	})
	c := newClient(t, srv.URL, rest.WithClock(clk))
	used := func(at time.Duration) string {
		t.Helper()
		clk.Set(start.Add(at))
		if _, err := c.Limits(t.Context()); err != nil {
			return "none"
		}
		requests, _ := srv.api()
		return requests[len(requests)-1].Header.Get("X-Auth-Token")
	}
	var got []string
	got = append(got, used(0), used(79*time.Minute), used(91*time.Minute)) // renewed at 80 to 90
	down.Store(1)
	// The second token ends at 191 and is to be renewed by 182.
	got = append(got, used(185*time.Minute), used(190*time.Minute), used(192*time.Minute))
	down.Store(0)
	got = append(got, used(193*time.Minute))
	want := []string{"token-1", "token-1", "token-2", "token-2", "token-2", "none", "token-3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}

// TestRefusedCredentialsAreNotHammered: for a second the refusal is given to all.
func TestRefusedCredentialsAreNotHammered(t *testing.T) {
	t.Parallel()
	clk := clock.NewManual(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	srv := newCanned(t, func(received) answer { return answer{status: 401} })
	c := newClient(t, srv.URL, rest.WithClock(clk))
	for range 5 {
		if _, err := c.Limits(t.Context()); !errors.Is(err, rest.ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	}
	if _, auths := srv.api(); auths != 1 {
		t.Errorf("%d authentications within a second", auths)
	}
	clk.Advance(time.Second)
	_, _ = c.Limits(t.Context())
	if _, auths := srv.api(); auths != 2 {
		t.Errorf("%d authentications after a second, want another one", auths)
	}
}

// TestALeavingCallerLeavesTheTokenToOthers: who authenticates and leaves does not take
// those who wait with it.
func TestALeavingCallerLeavesTheTokenToOthers(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	srv := newCanned(t, func(r received) answer {
		if r.URI == authPath {
			arrived <- struct{}{}
			<-release
			return answer{status: 200, body: access("dev", "")}
		}
		return answer{status: 200, body: `{}`}
	})
	c := newClient(t, srv.URL)
	ctx, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Limits(ctx)
		left <- err
	}()
	<-arrived
	go func() {
		_, err := c.Limits(t.Context())
		stayed <- err
	}()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	<-arrived
	close(release)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed got %v", err)
	}
}
