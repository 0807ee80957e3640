package runtime

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheck is how often the files of a certificate are looked at, at most.
const recheck = 10 * time.Second

// fileCertificate serves a certificate from files and takes up new ones when they are
// replaced, as tools that renew certificates do. It starts no goroutine: a handshake
// looks.
type fileCertificate struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time
	stamp   [2]time.Time
}

func newFileCertificate(cert, key string, log *slog.Logger) (*fileCertificate, error) {
	f := &fileCertificate{cert: cert, key: key, log: log}
	stamp, err := f.stamps()
	if err != nil {
		return nil, err
	}
	if err := f.load(stamp); err != nil {
		return nil, err
	}
	return f, nil
}

// config is the TLS configuration of the HTTP door.
func (f *fileCertificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: f.get}
}

func (f *fileCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= recheck {
		f.looked = now
		stamp, err := f.stamps()
		if err == nil && stamp != f.stamp {
			err = f.load(stamp)
		}
		if err != nil {
			f.log.Warn("the certificate of the HTTP door cannot be read again; the one in memory stays", "error", err)
		}
	}
	return f.current, nil
}

func (f *fileCertificate) load(stamp [2]time.Time) error {
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", f.cert, f.key, err)
	}
	f.current, f.stamp = &c, stamp
	return nil
}

func (f *fileCertificate) stamps() (stamp [2]time.Time, err error) {
	for i, path := range []string{f.cert, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			return stamp, err
		}
		stamp[i] = info.ModTime()
	}
	return stamp, nil
}
