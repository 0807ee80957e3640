package identity

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// FileVault keeps secrets as files of mode 0600 in a directory of mode 0700, wrapped
// when there is a cluster secret.
type FileVault struct {
	dir    string
	secret hidden
}

// NewFileVault returns the vault in dir, which is made when the first secret is.
func NewFileVault(dir, clusterSecret string) *FileVault {
	return &FileVault{dir, hide(clusterSecret)}
}

// Load implements Vault. A directory or file that others may read is an error.
func (v *FileVault) Load(_ context.Context, name string) ([]byte, error) {
	path := filepath.Join(v.dir, name)
	if err := checkPrivate(v.dir, 0o700); err != nil {
		return nil, err
	}
	data, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	if *v.secret.text == "" && !bytes.HasPrefix(data, sealMagic) {
		return data, nil
	}
	return unseal(*v.secret.text, name, path, data)
}

// Create implements Vault.
func (v *FileVault) Create(_ context.Context, name string, secret []byte) error {
	return v.write(name, secret, createPrivate)
}

// Replace implements Vault.
func (v *FileVault) Replace(_ context.Context, name string, secret []byte) error {
	return v.write(name, secret, replacePrivate)
}

// Delete implements Vault: the file is gone from the disk when it returns.
func (v *FileVault) Delete(_ context.Context, name string) error {
	path := filepath.Join(v.dir, name)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(v.dir)
	}
	if err != nil {
		return fileError("remove "+path, err)
	}
	return nil
}

func (v *FileVault) write(name string, secret []byte, write func(string, []byte) error) error {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return fileError("make the directory for keys", err)
	}
	if err := checkPrivate(v.dir, 0o700); err != nil {
		return err
	}
	if *v.secret.text != "" {
		sealed, err := seal(*v.secret.text, name, secret)
		if err != nil {
			return err
		}
		secret = sealed
	}
	return write(filepath.Join(v.dir, name), secret)
}

func pkiDir(data string) string { return filepath.Join(data, "pki") }

// checkPrivate returns an error when somebody but the owner has rights to path; a path
// that does not exist is fine.
func checkPrivate(path string, want fs.FileMode) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fileError("look at "+path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return errs.New(errs.FailedPrecondition, "%s has mode %04o, and holds secrets: run chmod %o %s, "+
			"and think of who may have read it", path, mode, want, path).In(component, "open secrets")
	}
	return nil
}

// readPrivate reads a file of secrets; tx.ErrNotFound: there is none.
func readPrivate(path string) ([]byte, error) {
	if err := checkPrivate(path, 0o600); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, tx.ErrNotFound
	}
	if err != nil {
		return nil, fileError("read "+path, err)
	}
	return data, nil
}

// createPrivate makes a file of secrets, whole and on disk, or not at all.
// tx.ErrExists: there is one.
func createPrivate(path string, data []byte) error {
	return putPrivate(path, data, func(temp string) error {
		err := os.Link(temp, path)
		if errors.Is(err, fs.ErrExist) {
			return tx.ErrExists
		}
		if err == nil {
			return nil
		}
		// A file system without hard links.
		if _, statErr := os.Lstat(path); !errors.Is(statErr, fs.ErrNotExist) {
			return err
		}
		return os.Rename(temp, path)
	})
}

// replacePrivate is createPrivate over what is there.
func replacePrivate(path string, data []byte) error {
	return putPrivate(path, data, func(temp string) error { return os.Rename(temp, path) })
}

func putPrivate(path string, data []byte, place func(temp string) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fileError("write "+path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = place(f.Name())
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil || errors.Is(err, tx.ErrExists) {
		return err
	}
	return fileError("write "+path, err)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

func fileError(operation string, err error) error {
	return errs.New(errs.FailedPrecondition, "%w", err).In(component, operation)
}
