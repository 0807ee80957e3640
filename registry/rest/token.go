package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
)

const (
	// renewal is the part of a token's life after which it is renewed, before jitter.
	renewal = 0.8
	// refusalKept is how long a refusal of the credentials is given to further callers
	// without asking again.
	refusalKept = time.Second
	// renewalPause is how long a good token is used on after it could not be renewed.
	renewalPause = 5 * time.Second
)

// token is what an authentication gave. It is not changed once others can see it.
type token struct {
	id, tenant string
	expires    time.Time // zero: not known, it lasts until it is refused
}

// tokens keeps the token of a Client. One caller at a time authenticates, on its own
// goroutine, and those who need the result wait for it.
type tokens struct {
	client           *Client
	url              string
	username, apiKey string
	tenant           string // fixed by the user; "": the authentication says it

	mu      sync.Mutex
	current *token
	renewAt time.Time // zero: never before it is refused
	flight  *flight
	refusal error // the credentials were refused, until refusedTo
	refused time.Time
}

// flight is one authentication under way. Its fields are read after done is closed.
type flight struct {
	done      chan struct{}
	token     *token
	err       error
	abandoned bool // its caller left: another one has to do it
}

// fixed reports whether there are no credentials to get another token with.
func (t *tokens) fixed() bool { return t.username == "" }

// get returns a token that is not the rejected one, from an authentication where needed.
func (t *tokens) get(ctx context.Context, rejected *token) (*token, error) {
	for {
		t.mu.Lock()
		now := t.client.clock.Now()
		held := t.usable(now, rejected)
		switch {
		case held != nil && (t.fixed() || t.renewAt.IsZero() || now.Before(t.renewAt) || t.flight != nil):
			t.mu.Unlock()
			return held, nil
		case t.refusal != nil && now.Before(t.refused):
			err := t.refusal
			t.mu.Unlock()
			if held != nil {
				return held, nil
			}
			return nil, err
		}
		f := t.flight
		if f == nil {
			f = &flight{done: make(chan struct{})}
			t.flight = f
			t.mu.Unlock()
			return t.fly(ctx, f, held)
		}
		t.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, errs.From(ctx.Err())
		}
		if !f.abandoned {
			return f.token, f.err
		}
	}
}

// usable returns the current token unless it is the rejected one or has ended. The mutex
// is held.
func (t *tokens) usable(now time.Time, rejected *token) *token {
	tok := t.current
	if tok == nil || tok == rejected || !tok.expires.IsZero() && !now.Before(tok.expires) {
		return nil
	}
	return tok
}

// fly authenticates and tells those who wait. A token that is still good outlasts a
// failure to renew it.
func (t *tokens) fly(ctx context.Context, f *flight, held *token) (*token, error) {
	issued := t.client.clock.Now()
	f.token, f.err = t.obtain(ctx)

	t.mu.Lock()
	t.flight = nil
	now := t.client.clock.Now()
	switch {
	case f.err == nil:
		t.current, t.refusal = f.token, nil
		t.renewAt = renewAt(issued, f.token.expires)
	case ctx.Err() != nil:
		f.abandoned = true
	case held != nil:
		t.renewAt = now.Add(renewalPause)
	case errors.Is(f.err, ErrUnauthorized) || errors.Is(f.err, ErrForbidden):
		t.refusal, t.refused = f.err, now.Add(refusalKept)
	}
	t.mu.Unlock()
	close(f.done)

	if f.err != nil {
		t.client.log.WarnContext(ctx, "could not authenticate with the registry", "error", f.err, "still_authenticated", held != nil)
		if held != nil && ctx.Err() == nil {
			return held, nil
		}
		return nil, f.err
	}
	t.client.log.DebugContext(ctx, "authenticated with the registry", "tenant", f.token.tenant, "expires", f.token.expires)
	return f.token, nil
}

// renewAt is when a token is renewed: at four fifths of its life, and up to a tenth
// later, so that many clients which started together do not come together.
func renewAt(issued, expires time.Time) time.Time {
	if expires.IsZero() {
		return time.Time{}
	}
	life := float64(expires.Sub(issued))
	return issued.Add(time.Duration(life * (renewal + 0.1*rand.Float64()))) //nolint:gosec // spreads load, guards nothing
}

// credentials is the body of an authentication.
type credentials struct {
	Auth struct {
		Key struct {
			Username string `json:"username"`
			APIKey   string `json:"apiKey"`
		} `json:"RAX-KSKEY:apiKeyCredentials"`
	} `json:"auth"`
}

// obtain authenticates.
func (t *tokens) obtain(ctx context.Context) (*token, error) {
	var body credentials
	body.Auth.Key.Username, body.Auth.Key.APIKey = t.username, t.apiKey
	text, err := json.Marshal(body)
	if err != nil {
		return nil, errs.New(errs.InvalidArgument, "authenticate: %w", err)
	}
	var a access
	if err := t.client.exchange(ctx, http.MethodPost, t.url, nil, text, &a); err != nil {
		return nil, fmt.Errorf("authenticate as %q: %w", t.username, err)
	}
	tok, err := a.token(t.tenant)
	if err != nil {
		return nil, fmt.Errorf("authenticate as %q: %w", t.username, err)
	}
	if tok.expires.IsZero() {
		t.client.log.DebugContext(ctx, "the token says no time of expiry that can be read; it is used until it is refused", "expires", a.Access.Token.Expires)
	}
	return tok, nil
}

// access is the answer to an authentication.
type access struct {
	Access struct {
		Token struct {
			ID      string `json:"id"`
			Expires string `json:"expires"`
			Tenant  struct {
				ID string `json:"id"`
			} `json:"tenant"`
		} `json:"token"`
		ServiceCatalog []catalogEntry `json:"serviceCatalog"`
	} `json:"access"`
}

type catalogEntry struct {
	Name      string `json:"name"`
	Endpoints []struct {
		TenantID  string `json:"tenantId"`
		PublicURL string `json:"publicURL"`
	} `json:"endpoints"`
}

// token reads what the registry needs: the id, the end, and the tenant, which is the
// given one, that of the token, or the one of the catalog.
func (a *access) token(tenant string) (*token, error) {
	in := a.Access.Token
	if in.ID == "" {
		return nil, errs.New(errs.Internal, "the answer has no access.token.id")
	}
	tok := &token{id: in.ID, tenant: tenant}
	if at, err := time.Parse(time.RFC3339, in.Expires); err == nil {
		tok.expires = at
	}
	if tok.tenant == "" {
		tok.tenant = in.Tenant.ID
	}
	if tok.tenant == "" {
		tok.tenant = catalogTenant(a.Access.ServiceCatalog)
	}
	if tok.tenant == "" || strings.ContainsAny(tok.tenant, "/?#") {
		return nil, errs.New(errs.Internal, "the answer names no tenant in access.token.tenant or access.serviceCatalog; give it with WithTenant")
	}
	return tok, nil
}

// catalogTenant finds the tenant where older servers have it: in the entry of the
// compute service, else of the monitoring service.
func catalogTenant(catalog []catalogEntry) string {
	for _, name := range []string{"cloudServers", "cloudServersOpenStack", "cloudServersLegacy", "cloudMonitoring"} {
		for _, e := range catalog {
			if e.Name != name || len(e.Endpoints) == 0 {
				continue
			}
			if id := e.Endpoints[0].TenantID; id != "" {
				return id
			}
			if u, err := url.Parse(e.Endpoints[0].PublicURL); err == nil && u.Path != "" && u.Path != "/" {
				return path.Base(u.Path)
			}
		}
	}
	return ""
}
