package runtime

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// The files that the runtime leaves in its data directory for commands on the same
// host.
const (
	rootFile = "ca.crt"   // the roots of the private CA, PEM
	urlFile  = "http.url" // where the HTTP door is
)

// writeRoots leaves the roots of the private CA that are in force.
func (r *Runtime) writeRoots() error {
	r.roots.Lock() // the latest is written last
	defer r.roots.Unlock()
	var roots [][]byte
	for _, root := range r.built.authority.Roots() {
		roots = append(roots, root.Raw)
	}
	return writeRootFile(r.Path(rootFile), roots)
}

func writeRootFile(path string, roots [][]byte) error {
	var text bytes.Buffer
	for _, root := range roots {
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root}); err != nil {
			return err
		}
	}
	return replaceFile(path, text.Bytes())
}

// writeURL leaves the address of the HTTP door.
func (r *Runtime) writeURL() error {
	addr := r.HTTPAddr()
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return replaceFile(r.Path(urlFile), []byte(r.scheme()+"://"+net.JoinHostPort(host, port)+"\n"))
}

// removeURL takes the address back: nobody answers there any more.
func (r *Runtime) removeURL() {
	if err := os.Remove(r.Path(urlFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("remove the address file", "error", err)
	}
}

func (r *Runtime) scheme() string {
	if r.cfg.plainHTTP() {
		return "http"
	}
	return "https"
}

// replaceFile writes a file that anybody may read, whole or not at all.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // nothing is there any more when all went well
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
