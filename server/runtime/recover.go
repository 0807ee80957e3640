package runtime

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store"
)

// Recovery is what Recover has done.
type Recovery = identity.Recovery

// Recover gives a cluster whose certificates have all expired, or whose root's private
// key is lost, working ones, and leaves the roots in Config.Data for commands on the
// same host. No runtime may run on the data directory or the database meanwhile: the
// error names who does. It is refused where nothing is wrong.
func Recover(ctx context.Context, cfg Config) (out *Recovery, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return nil, &ConfigError{Problems: []Problem{{Key: "data", Message: err.Error()}}}
	}
	if err := cfg.clusterThere(); err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, store.Config{
		URL: cfg.Database, Data: cfg.Data, Clock: cfg.Clock, Log: cfg.Log.With("part", "store"), Fast: cfg.Fast,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	config := cfg.identity(s, cfg.Log.With("part", "identity"))
	if config.Vault, err = cfg.vault(s); err != nil {
		return nil, err
	}
	if out, err = identity.Recover(ctx, config); err != nil {
		return nil, err
	}
	return out, writeRootFile(filepath.Join(cfg.Data, rootFile), out.Roots)
}

// clusterThere refuses a data directory without a database, which opening would make.
func (c Config) clusterThere() error {
	if c.Postgres() {
		return nil
	}
	file := "telford.db"
	if c.Database != "" {
		file = c.Database
		for _, scheme := range []string{"sqlite:", "file:"} {
			file = strings.TrimPrefix(strings.TrimPrefix(file, scheme), "//")
		}
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(c.Data, file)
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.FailedPrecondition, "there is no cluster in %s: name its data directory with --data, or its database with --database",
			file).In("runtime", "recover")
	}
	return nil
}
