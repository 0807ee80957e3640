package telfordtest

import (
	"log/slog"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/runtime"
)

// Option changes how a Server is made.
type Option func(*runtime.Config)

// Clock is a clock that moves only when it is told to, by Advance or Set.
type Clock = clock.Manual

// NewClock returns a clock that stands at now.
func NewClock(now time.Time) *Clock { return clock.NewManual(now) }

// WithClock gives the runtime a clock of the test's. Certificates are judged by it too:
// an SDK with another clock is refused once they are too far apart.
func WithClock(c *Clock) Option { return func(cfg *runtime.Config) { cfg.Clock = c } }

// WithCertificateClock gives what makes and judges certificates a clock of the test's;
// all other time stays that of the machine. The SDK takes the same one by
// telford.WithCertificateClock. Clock.Leap moves months in one step.
func WithCertificateClock(c *Clock) Option {
	return func(cfg *runtime.Config) { cfg.CertificateClock = c }
}

// WithDatabase puts the store on PostgreSQL (a postgres:// URL) or into a SQLite file
// elsewhere (a path). "" means the data directory.
func WithDatabase(url string) Option {
	return func(cfg *runtime.Config) {
		cfg.Database = url
		if cfg.Postgres() && cfg.ClusterSecret == "" {
			cfg.ClusterSecret = "telfordtest telfordtest telfordtest"
		}
	}
}

// LeafLife sets how long certificates live, at least 2 s; for tests of their rotation.
func LeafLife(d time.Duration) Option { return func(cfg *runtime.Config) { cfg.LeafLife = d } }

// CertificateLives sets how long roots, the issuers below them and the certificates
// below those live; for tests of their rotation.
func CertificateLives(root, issuer, leaf time.Duration) Option {
	return func(cfg *runtime.Config) { cfg.RootLife, cfg.IssuerLife, cfg.LeafLife = root, issuer, leaf }
}

// WithTLS serves HTTP with a certificate of the private CA instead of plainly.
func WithTLS() Option { return func(cfg *runtime.Config) { cfg.HTTPPlain = runtime.Off } }

// Dev runs the runtime as `telford serve --dev` does: DATA/dev.key may be any service.
func Dev() Option { return func(cfg *runtime.Config) { cfg.Dev = true } }

// Synced makes SQLite sync as in production; tests do without, because only a crash of
// the whole machine would show the difference.
func Synced() Option { return func(cfg *runtime.Config) { cfg.Fast = false } }

// WithLog sends the runtime's log somewhere; it is discarded otherwise.
func WithLog(log *slog.Logger) Option { return func(cfg *runtime.Config) { cfg.Log = log } }

// With changes any other setting.
func With(change func(*runtime.Config)) Option { return change }
