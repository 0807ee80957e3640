package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}

// openConfig opens a store that is closed with the test.
func openConfig(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func sqliteStore(t testing.TB) storetest.Store {
	return openConfig(t, store.Config{Data: t.TempDir(), Fast: true})
}

func postgresStore(t testing.TB) storetest.Store {
	return openConfig(t, store.Config{URL: storetest.Postgres(t)})
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, sqliteStore)
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, postgresStore)
}

func TestPostgresAgreesWithSQLiteAndTheModel(t *testing.T) {
	t.Parallel()
	storetest.Agree(t, map[string]storetest.Store{"sqlite": sqliteStore(t), "postgres": postgresStore(t)})
}

func TestMigrationsArePaired(t *testing.T) {
	t.Parallel()
	names := func(dir string) (all []string) {
		files, err := fs.Glob(os.DirFS(dir), "migrations/*")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		return files
	}
	if d := cmp.Diff(names("sqlite"), names("postgres")); d != "" {
		t.Errorf("migrations of SQLite (-) and PostgreSQL (+) differ:\n%s", d)
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, elsewhere := filepath.Join(dir, "data"), filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, file string }{
		{"", filepath.Join(data, "telford.db")},
		{"other.db", filepath.Join(data, "other.db")},
		{"sqlite:sub.db", filepath.Join(data, "sub.db")},
		{"sqlite:" + elsewhere + "/a b ü.db", filepath.Join(elsewhere, "a b ü.db")},
		{elsewhere + "/c.db", filepath.Join(elsewhere, "c.db")},
	} {
		s, err := store.Open(t.Context(), store.Config{URL: c.url, Data: data, Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(c.file)
		if err != nil {
			t.Errorf("URL %q: %v", c.url, err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", c.file, info.Mode())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct{ url, data, want string }{
		{"", "", "no data directory"},
		{"mysql://root:secret@host/db", data, "postgres://USER@HOST/NAME"},
		{":memory:", data, "path of a file"},
		{"sqlite:", data, "path of a file"},
		{"a.db?mode=ro", data, "path of a file"},
		{"a.db", "", "relative"},
		{"postgres://u:secret@127.0.0.1:1/db?connect_timeout=1", "", "127.0.0.1:1"},
		{"postgres://u:secret@host:port/db", "", "postgres://USER"},
		{"", elsewhere + "/file/below", "not a directory"},
	} {
		if strings.HasSuffix(c.data, "below") {
			if err := os.WriteFile(filepath.Dir(c.data), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := store.Open(t.Context(), store.Config{URL: c.url, Data: c.data})
		if err == nil {
			_ = s.Close()
			t.Errorf("URL %q, data %q: no error", c.url, c.data)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("URL %q: error %q, want %q in it and no password", c.url, err, c.want)
		}
	}
}

func TestADirectoryIsUsedByOne(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Data: data, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(t.Context(), store.Config{Data: data, Fast: true})
	if err == nil || !strings.Contains(err.Error(), data) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("a second store in one directory: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	openConfig(t, store.Config{Data: data, Fast: true})
}

// opens fails unless opening the directory fails with all of the texts in its error.
func refuses(t *testing.T, cfg store.Config, texts ...string) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
		t.Fatal("the store was opened")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func TestADamagedFile(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	file := filepath.Join(data, "telford.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, store.Config{Data: data}, file, "not an SQLite database", "backup")
	// A database with its first pages overwritten.
	data = t.TempDir()
	file = filepath.Join(data, "telford.db")
	s := openConfig(t, store.Config{Data: data})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(strings.Repeat("x", 8000)), 100)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	refuses(t, store.Config{Data: data}, file, "damaged", "backup")
}

func TestANewerSchema(t *testing.T) {
	t.Parallel()
	for kind, cfg := range map[string]store.Config{
		"sqlite":   {Data: t.TempDir(), Fast: true},
		"postgres": {URL: "postgres"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if kind == "postgres" {
				cfg.URL = storetest.Postgres(t)
			}
			change := func(query string) {
				t.Helper()
				s := openConfig(t, cfg)
				if err := s.Write(t.Context(), func(t2 tx.Tx) error {
					_, err := t2.(interface {
						Exec(string, ...any) (int64, error)
					}).Exec(query)
					return err
				}); err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			change("INSERT INTO schema_migrations (version, name, applied_at) VALUES (98, 'tomorrow', 0), (99, 'later', 0)")
			known, err := fs.Glob(os.DirFS("sqlite"), "migrations/*")
			if err != nil {
				t.Fatal(err)
			}
			refuses(t, cfg, "schema version 99 (later)", fmt.Sprintf("up to %d", len(known)), "newer program", "backup")
			if kind == "sqlite" {
				refuses(t, cfg, cfg.Data)
			}
		})
	}
}

func TestADirectoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := openConfig(t, store.Config{Data: data, Fast: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(data, "telford.db"), 0o444); err != nil {
		t.Fatal(err)
	}
	withoutRoot(t, func() {
		refuses(t, store.Config{Data: data}, data, "permission denied", "--data")
		refuses(t, store.Config{Data: filepath.Join(data, "new")}, data, "permission denied", "--data")
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := prometheus.NewPedanticRegistry()
	s, err := store.Open(t.Context(), store.Config{Data: t.TempDir(), Fast: true, Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.Write(t.Context(), func(t2 tx.Tx) error { return s.PutMeta(t2, fmt.Sprint(i), nil) }); err != nil {
			t.Fatal(err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	for _, name := range []string{"telford_store_writes_total", "telford_store_commit_seconds", "telford_store_commit_writes"} {
		if got[name] != 3 {
			t.Errorf("%s is %v, want 3; have %v", name, got[name], got)
		}
	}
	refuses(t, store.Config{Data: t.TempDir(), Fast: true, Metrics: r}, "metrics")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openConfig(t, store.Config{Data: t.TempDir(), Fast: true, Metrics: r})
}

func TestOpeningIsFast(t *testing.T) {
	t.Parallel()
	best := time.Hour
	for range 5 {
		start := time.Now()
		openConfig(t, store.Config{Data: t.TempDir(), Fast: true})
		best = min(best, time.Since(start))
	}
	if best > 100*time.Millisecond { // under 10 ms where nothing else runs
		t.Errorf("opening took %v", best)
	}
}

var _ identity.Storage = (*store.Store)(nil)
