package identity_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
)

const secret = "correct horse battery staple"

func TestFirstStartAndTheNext(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		a := f.open(t)
		if !regexp.MustCompile(`^[0-9a-f]{12}\.telford$`).MatchString(a.TrustDomain()) {
			t.Errorf("trust domain %q", a.TrustDomain())
		}
		if diff := cmp.Diff([]identity.Namespace{{Name: "default", Account: 1000, Created: epoch}}, a.Namespaces()); diff != "" {
			t.Error(diff)
		}
		root := a.Roots()[0]
		if life := root.NotAfter.Sub(epoch); life != 10*365*24*time.Hour {
			t.Errorf("the root lives %s", life)
		}
		own := a.Trust().Certificate()
		if len(own.Certificate) != 3 || !a.Trust().Identity().IsRuntime() || a.Trust().Identity().Instance != "node_1" {
			t.Errorf("own certificate: %d in the chain, %s", len(own.Certificate), a.Trust().Identity())
		}
		for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
			if err := own.Leaf.VerifyHostname(host); err != nil {
				t.Error(err)
			}
		}
		k := serviceKey(t, a, "payments")
		p := provision(t, a, f.clk, k, "payments", "in_1")

		again := f.open(t, func(cfg *identity.Config) { cfg.TrustDomain = a.TrustDomain() })
		if again.TrustDomain() != a.TrustDomain() || !again.Roots()[0].Equal(root) {
			t.Error("another cluster after the restart")
		}
		if _, err := again.Authenticate(context.Background(), k.String()); err != nil {
			t.Errorf("the key after the restart: %v", err)
		}
		if err := p.renew(t, again); err != nil {
			t.Errorf("the certificate after the restart: %v", err)
		}
		_, err := f.tryOpen(func(cfg *identity.Config) { cfg.TrustDomain = "elsewhere" })
		wantError(t, err, errs.FailedPrecondition, `"elsewhere"`, a.TrustDomain(), "data directory")
	})
}

func TestTrustDomainByOption(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	if a := f.open(t, func(cfg *identity.Config) { cfg.TrustDomain = "prod.example" }); a.TrustDomain() != "prod.example" {
		t.Errorf("trust domain %q", a.TrustDomain())
	}
	if a := f.open(t); a.TrustDomain() != "prod.example" {
		t.Errorf("trust domain %q after a restart without the option", a.TrustDomain())
	}
}

func TestOpenListsEveryWrongSetting(t *testing.T) {
	t.Parallel()
	_, err := identity.Open(context.Background(), identity.Config{
		LeafLife: time.Second, RootLife: time.Hour, Node: "no/de", TrustDomain: "No", ClusterSecret: "short",
	})
	wantError(t, err, errs.InvalidArgument, "DB and Storage", "LeafLife 1s", "leaf (1s) <= issuer", `"no/de"`, `"No"`, "has 5 characters", "Vault or a Data")
}

func TestClusterSecret(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		with := func(s string) func(*identity.Config) {
			return func(cfg *identity.Config) { cfg.ClusterSecret = s }
		}
		k := serviceKey(t, f.open(t, with(secret)), "payments")
		if _, err := f.open(t, with(secret)).Authenticate(context.Background(), k.String()); err != nil {
			t.Error(err)
		}
		_, err := f.tryOpen(with(secret + "!"))
		wantError(t, err, errs.FailedPrecondition, "TELFORD_CLUSTER_SECRET is not the secret")
		_, err = f.tryOpen()
		wantError(t, err, errs.FailedPrecondition, "set TELFORD_CLUSTER_SECRET")
	})
	f := newFixture(newMemory())
	f.open(t)
	_, err := f.tryOpen(func(cfg *identity.Config) { cfg.ClusterSecret = secret })
	wantError(t, err, errs.FailedPrecondition, "unset it if it was not set")
}

func TestMetaVault(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		_, err := identity.NewMetaVault(f.store, f.store, "")
		wantError(t, err, errs.FailedPrecondition, "TELFORD_CLUSTER_SECRET is required with PostgreSQL")
		_, err = identity.NewMetaVault(f.store, f.store, "short")
		wantError(t, err, errs.InvalidArgument, "at least 16")
		vault := func(s string) func(*identity.Config) {
			return func(cfg *identity.Config) {
				v, err := identity.NewMetaVault(f.store, f.store, s)
				if err != nil {
					t.Fatal(err)
				}
				cfg.Vault, cfg.ClusterSecret = v, s
			}
		}
		a, b := f.open(t, vault(secret)), f.open(t, vault(secret))
		if !a.Roots()[0].Equal(b.Roots()[0]) {
			t.Error("two nodes have two roots")
		}
		v, err := identity.NewMetaVault(f.store, f.store, "another secret of length")
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Load(context.Background(), "root.pem")
		wantError(t, err, errs.FailedPrecondition, "the database's root.pem cannot be unwrapped", "TELFORD_CLUSTER_SECRET is not")
	})
}

// TestNodesStartTogether has several nodes make one cluster.
func TestNodesStartTogether(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		v, err := identity.NewMetaVault(f.store, f.store, secret)
		if err != nil {
			t.Fatal(err)
		}
		type opened struct {
			a   *identity.Authority
			err error
		}
		results := make(chan opened)
		const nodes = 4
		for range nodes {
			go func() {
				a, err := f.tryOpen(func(cfg *identity.Config) { cfg.Vault, cfg.ClusterSecret = v, secret })
				results <- opened{a, err}
			}()
		}
		domains := make(map[string]bool)
		for range nodes {
			o := <-results
			if o.err != nil {
				t.Error(o.err)
				continue
			}
			domains[o.a.TrustDomain()+string(o.a.Roots()[0].Raw)] = true
		}
		if len(domains) != 1 {
			t.Errorf("%d clusters", len(domains))
		}
	})
}

func TestFiles(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, s string) (*fixture, string, func(*identity.Config)) {
		t.Helper()
		f, data := newFixture(newMemory()), filepath.Join(t.TempDir(), "data")
		conf := func(cfg *identity.Config) { cfg.Vault, cfg.Data, cfg.ClusterSecret = nil, data, s }
		f.open(t, conf, dev)
		return f, data, conf
	}
	t.Run("modes", func(t *testing.T) {
		t.Parallel()
		_, data, _ := setup(t, "")
		for path, want := range map[string]os.FileMode{
			"pki": 0o700, "pki/root.pem": 0o600, "pki/issuer.pem": 0o600, "pki/cluster.secret": 0o600, "admin.token": 0o600, "dev.key": 0o600,
		} {
			info, err := os.Stat(filepath.Join(data, path))
			if err != nil {
				t.Error(err)
			} else if got := info.Mode().Perm(); got != want {
				t.Errorf("%s has mode %o, want %o", path, got, want)
			}
		}
		left, err := filepath.Glob(filepath.Join(data, "*", ".new-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
	t.Run("wrapped", func(t *testing.T) {
		t.Parallel()
		f, data, conf := setup(t, secret)
		text, err := os.ReadFile(filepath.Join(data, "pki", "root.pem"))
		if err != nil || strings.Contains(string(text), "PRIVATE KEY") {
			t.Errorf("the root is not wrapped: %v", err)
		}
		if _, err := os.Stat(filepath.Join(data, "pki", "cluster.secret")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a cluster secret was made besides: %v", err)
		}
		f.open(t, conf, dev)
		other := newFixture(newMemory()) // the database is gone, and with it what proves the secret
		for s, want := range map[string]string{
			"": "is wrapped: set TELFORD_CLUSTER_SECRET", "another secret of length": "cannot be unwrapped",
		} {
			_, err := other.tryOpen(conf, func(cfg *identity.Config) { cfg.ClusterSecret = s })
			wantError(t, err, errs.FailedPrecondition, filepath.Join(data, "pki", "root.pem"), want)
			other = newFixture(newMemory())
		}
	})
	for name, test := range map[string]struct {
		harm func(t *testing.T, data string)
		want string
	}{
		"file others can read":       {chmod("pki/root.pem", 0o640), "has mode 0640, and holds secrets: run chmod 600"},
		"directory others can enter": {chmod("pki", 0o755), "has mode 0755, and holds secrets: run chmod 700"},
		"token others can read":      {chmod("admin.token", 0o604), "has mode 0604"},
		"dev key others can read":    {chmod("dev.key", 0o660), "has mode 0660"},
		"token of garbage":           {put("admin.token", "hello"), "holds no operator's token"},
		"root lost":                  {remove("pki/root.pem"), "private key (root.pem) is missing"},
		"secret lost":                {remove("pki/cluster.secret"), "restore cluster.secret"},
		"secret changed":             {put("pki/cluster.secret", "x"), "cluster.secret is not the secret that this cluster began with"},
		"root damaged":               {put("pki/root.pem", "x"), "root.pem is damaged (no private key)"},
		"issuer damaged":             {put("pki/issuer.pem", "x"), "issuer.pem is damaged"},
		"root of another cluster":    {swap("root.pem"), "belong to two clusters"},
		"issuer of another cluster":  {swap("issuer.pem"), "was not signed by the root of this cluster"},
		"unreadable":                 {block("pki/root.pem"), "root.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, data, conf := setup(t, "")
			test.harm(t, data)
			_, err := f.tryOpen(conf, dev)
			wantError(t, err, errs.FailedPrecondition, test.want)
		})
	}
	t.Run("issuer lost", func(t *testing.T) {
		t.Parallel()
		f, data, conf := setup(t, "")
		remove("pki/issuer.pem")(t, data)
		serviceKey(t, f.open(t, conf), "payments")
		if _, err := os.Stat(filepath.Join(data, "pki", "issuer.pem")); err != nil {
			t.Error(err)
		}
	})
	t.Run("token and dev key stay", func(t *testing.T) {
		t.Parallel()
		f, data, conf := setup(t, "")
		a, b := f.open(t, conf, dev), f.open(t, conf, dev)
		if a.OperatorToken() != b.OperatorToken() || a.DevKey().String() != b.DevKey().String() {
			t.Error("a restart makes other credentials")
		}
		put("dev.key", "rubbish")(t, data)
		if c := f.open(t, conf, dev); c.DevKey().String() == a.DevKey().String() {
			t.Error("a lost dev key came back")
		}
		text, err := os.ReadFile(filepath.Join(data, "dev.key"))
		if k, parseErr := ident.ParseKey(string(text)); err != nil || parseErr != nil || k.ID == a.DevKey().ID {
			t.Errorf("dev.key: %v %v", err, parseErr)
		}
		if f.open(t, conf).DevKey() != nil {
			t.Error("a dev key outside dev mode")
		}
	})
}

func chmod(path string, mode os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(data, path), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func put(path, text string) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(data, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(path string) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		t.Helper()
		if err := os.Remove(filepath.Join(data, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// swap puts in the file of another cluster.
func swap(name string) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		t.Helper()
		other := t.TempDir()
		newFixture(newMemory()).open(t, func(cfg *identity.Config) { cfg.Vault, cfg.Data = nil, other })
		text, err := os.ReadFile(filepath.Join(other, "pki", name))
		if err != nil {
			t.Fatal(err)
		}
		put("pki/"+name, string(text))(t, data)
	}
}

// block puts a directory where a file should be.
func block(path string) func(*testing.T, string) {
	return func(t *testing.T, data string) {
		t.Helper()
		remove(path)(t, data)
		if err := os.Mkdir(filepath.Join(data, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDataDirectoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	blocked := filepath.Join(t.TempDir(), "file")
	put("", "")(t, blocked)
	_, err := newFixture(newMemory()).tryOpen(func(cfg *identity.Config) { cfg.Vault, cfg.Data = nil, filepath.Join(blocked, "data") })
	wantError(t, err, errs.FailedPrecondition, blocked)
}

func TestStoreThatFailsAtTheStart(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errors.New("broken pipe"), context.Canceled} {
		f, m := newFixture(nil), newMemory()
		f.store, m.fail = m, cause
		if _, err := f.tryOpen(); !errors.Is(err, cause) {
			t.Errorf("error %v does not say why: %v", err, cause)
		}
	}
}
