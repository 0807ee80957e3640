package identity_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
)

// TestNothingPrintsASecret formats everything of the package in every way, and reads
// its whole log.
func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	f, data := newFixture(newMemory()), t.TempDir()
	ctx := context.Background()
	var cfg identity.Config
	a := f.open(t, dev, func(c *identity.Config) {
		c.Vault, c.Data, c.ClusterSecret = nil, data, secret
		cfg = *c
	})
	row, text, err := a.CreateKey(ctx, identity.CreateKey{Service: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := ident.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	p := provision(t, a, f.clk, k, "payments", "in_1")
	wrong := k
	wrong.Secret[3] ^= 1
	req := identity.ProvisionRequest{KeyID: k.ID, Secret: k.Secret[:], CSR: []byte("x"), Service: "payments"}
	_, badCSR := a.Provision(ctx, req)
	_, badSecret := a.Provision(ctx, identity.ProvisionRequest{KeyID: k.ID, Secret: wrong.Secret[:]})
	_, badKey := a.Authenticate(ctx, wrong.String())
	_, badToken := a.Authenticate(ctx, a.OperatorToken()+"x")
	_, badPair := a.Authenticate(ctx, k.ID+":"+k.SecretText()+"A")
	principal, err := a.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	next, _, err := a.RotateKey(ctx, k.ID, 0, "ada")
	if err != nil {
		t.Fatal(err)
	}
	vault := identity.NewFileVault(data, secret)
	meta, err := identity.NewMetaVault(f.store, f.store, secret)
	if err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	things := []any{
		a, *a.DevKey(), a.DevKey(), cfg, &cfg, row, next, req, &req, principal, p.trust, a.Trust(), vault, meta, k,
		badCSR, badSecret, badKey, badToken, badPair,
		[]any{cfg, req},
		struct{ C identity.Config }{cfg},
	}
	for _, v := range things {
		fmt.Fprintf(&out, "%v %+v %#v\n", v, v, v)
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			if _, err := json.Marshal(v); err == nil {
				slog.New(h).Info("thing", "v", v)
			}
		}
	}
	out.WriteString(f.logs.String())
	root, err := os.ReadFile(filepath.Join(data, "pki", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	decimal := func(b []byte) string { return strings.Trim(fmt.Sprintf("%d", b), "[]") }
	for name, hidden := range map[string]string{
		"key text": text[30:70], "secret": k.SecretText()[:24], "secret in hex": hex.EncodeToString(k.Secret[:8]),
		"secret in decimal": decimal(k.Secret[:6]), "secret in Go": strings.Trim(fmt.Sprintf("%#v", k.Secret[:4]), "[]byte{}"),
		"secret in base64": base64.StdEncoding.EncodeToString(k.Secret[:12]),
		"dev key":          a.DevKey().String()[30:70], "operator": a.OperatorToken()[8:30], "cluster secret": secret,
		"cluster secret in decimal": decimal([]byte(secret)[:8]), "private key": "PRIVATE KEY",
		"wrapped root in decimal": decimal(root[40:48]),
	} {
		if at := strings.Index(out.String(), hidden); at >= 0 {
			t.Errorf("%s is printed: %s", name, out.String()[max(0, at-200):at])
		}
	}
	if !strings.Contains(f.logs.String(), k.ID) || !strings.Contains(out.String(), `node="node_1"`) {
		t.Error("the test looks at nothing")
	}
}
