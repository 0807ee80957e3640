package restdoor

import (
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/restreg"
)

// authenticate finds the account and checks that the token is of it.
func (d *Door) authenticate(q *request) *rest.Fault {
	q.tenant = q.http.Header.Get("X-Tenant-Id")
	if q.tenant == "" {
		rest, _ := cutFold(q.path, "/v1.0")
		segment, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		if !digits(segment) {
			return d.unauthorized(q, "No tenant id provided")
		}
		q.tenant = segment
	}
	token := q.http.Header.Get("X-Auth-Token")
	if given, ok, several := q.one("x-auth-token"); several {
		return d.unauthorized(q, invalidToken)
	} else if ok {
		token = given
	}
	if token == "" {
		return d.unauthorized(q, "No authentication token provided")
	}
	p, _, err := d.cfg.Tokens.Check(q.http.Context(), token)
	if err != nil {
		return d.unauthorized(q, invalidToken)
	}
	ns, err := d.cfg.Namespaces.Namespace(q.tenant)
	if err != nil || ns.Name != p.Namespace {
		return d.unauthorized(q, invalidToken)
	}
	q.namespace, q.created = ns.Name, ns.Created
	q.by = restreg.Author{Namespace: ns.Name, KeyID: p.KeyID, Service: p.Service}
	return nil
}

const invalidToken = "Invalid or expired authentication token" //nolint:gosec // what is told, no token

func (d *Door) unauthorized(q *request, why string) *rest.Fault {
	q.w.Header().Set("WWW-Authenticate", `Keystone uri="`+q.base+`/v2.0"`)
	return rest.NewFault(rest.FaultUnauthorized, "forbidden", why)
}

// digits reports a number of some length.
func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// The answer to a request for a token, in the shape that every known client reads.
type (
	accessAnswer struct {
		Access access `json:"access"`
	}
	access struct {
		Token   accessToken    `json:"token"`
		Catalog []catalogEntry `json:"serviceCatalog"`
		User    accessUser     `json:"user"`
	}
	accessToken struct {
		ID      string `json:"id"`
		Expires string `json:"expires"`
		Tenant  struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"tenant"`
	}
	catalogEntry struct {
		Name      string            `json:"name"`
		Type      string            `json:"type"`
		Endpoints []catalogEndpoint `json:"endpoints"`
	}
	catalogEndpoint struct {
		TenantID  string `json:"tenantId"`
		PublicURL string `json:"publicURL"`
	}
	accessUser struct {
		ID    string   `json:"id"`
		Name  string   `json:"name"`
		Roles []string `json:"roles"`
	}
)

// expiryZone is a zone whose offset every known client can read.
var expiryZone = time.FixedZone("", -5*60*60)

// tokens issues a token for a key, or says whose a token is.
func (d *Door) tokens(q *request) *rest.Fault {
	if q.method != "POST" {
		return q.unknownPath()
	}
	auth, ok := q.object["auth"].(map[string]any)
	if !ok {
		return keystone(q, 400, "badRequest", "the body has no object \"auth\"")
	}
	var text string
	var expires time.Time
	var p identity.Principal
	var err error
	if known, ok := auth["token"].(map[string]any); ok {
		text, _ = known["id"].(string)
		p, expires, err = d.cfg.Tokens.Check(q.http.Context(), text)
		if tenant, _ := auth["tenantName"].(string); err == nil && tenant != "" {
			if ns, e := d.cfg.Namespaces.Namespace(tenant); e != nil || ns.Name != p.Namespace {
				return keystone(q, 401, "unauthorized", "the token is of another tenant")
			}
		}
	} else {
		id, secret, found := credentials(auth)
		if !found {
			return keystone(q, 400, "badRequest", "\"auth\" has no \"RAX-KSKEY:apiKeyCredentials\" with \"username\" and \"apiKey\"")
		}
		text, expires, p, err = d.cfg.Tokens.Issue(id, secret)
	}
	if err != nil {
		return keystone(q, 401, "unauthorized", errs.From(err).Message)
	}
	ns, err := d.cfg.Namespaces.Namespace(p.Namespace)
	if err != nil {
		return keystone(q, 401, "unauthorized", errs.From(err).Message)
	}
	if ns.Account == 0 {
		return keystone(q, 403, "forbidden", "namespace "+ns.Name+" has no account number, which this API needs; give it one: telford namespaces alias "+ns.Name+" NUMBER")
	}
	d.stats.issued.Add(1)
	return q.answer(200, accessFor(q.base, ns.Account, text, expires, &p))
}

func accessFor(base string, account int64, token string, expires time.Time, p *identity.Principal) *accessAnswer {
	tenant := formatAccount(account)
	endpoints := []catalogEndpoint{{TenantID: tenant, PublicURL: base + "/v1.0/" + tenant}}
	a := &accessAnswer{Access: access{
		Token: accessToken{ID: token, Expires: expires.In(expiryZone).Format("2006-01-02T15:04:05.000-07:00")},
		Catalog: []catalogEntry{
			{Name: "cloudServers", Type: "compute", Endpoints: endpoints},
			{Name: "cloudMonitoring", Type: "rax:monitor", Endpoints: endpoints},
		},
		User: accessUser{ID: p.KeyID, Name: p.KeyID, Roles: []string{}},
	}}
	a.Access.Token.Tenant.ID, a.Access.Token.Tenant.Name = tenant, tenant
	return a
}

// credentials finds the id and the secret of a key in any of the forms that clients send.
func credentials(auth map[string]any) (id, secret string, found bool) {
	for _, form := range []struct{ object, secret string }{
		{"RAX-KSKEY:apiKeyCredentials", "apiKey"}, {"passwordCredentials", "password"},
	} {
		if c, ok := auth[form.object].(map[string]any); ok {
			id, _ = c["username"].(string)
			secret, _ = c[form.secret].(string)
			return id, secret, id != "" && secret != ""
		}
	}
	return "", "", false
}

// keystone answers with a fault in the shape of the identity API.
func keystone(q *request, status int, name, message string) *rest.Fault {
	return q.answer(status, map[string]any{name: struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{status, message}})
}
