package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockName is the file in a directory whose lock says that a process uses it.
const lockName = "telford.lock"

// directory is a data directory that this process has to itself.
type directory struct {
	path string
	lock *os.File
}

// openDirectory makes the directory if there is none and locks it. The lock ends with
// the process, however it ends.
func openDirectory(path string) (*directory, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := makeDirectory(path); err != nil {
		return nil, fmt.Errorf("make the data directory: %w: create it, or choose another one with --data", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory %s cannot be written: %w: give this user the right to, or choose another one with --data", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w: choose a data directory on a local disk", f.Name(), err)
		}
		return nil, fmt.Errorf("data directory %s is in use%s: stop that process, or choose another one with --data", path, holder(f))
	}
	d := &directory{path: path, lock: f}
	if err := d.sign(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// makeDirectory makes path and its parents, with its entry in the parent on the disk.
func makeDirectory(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", path)
		}
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// sign writes who holds the lock into its file, for the error of whoever comes next.
func (d *directory) sign() error {
	err := d.lock.Truncate(0)
	if err == nil {
		_, err = d.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("data directory %s cannot be written: %w", d.path, err)
	}
	return nil
}

func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(text)); err == nil && pid != "" {
		return " by process " + pid
	}
	return " by another process"
}

// close lets go of the directory. The lock is given up by name: closing the file is
// not enough while a process that is being started still shares it.
func (d *directory) close() error {
	err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN)
	if err := errors.Join(err, d.lock.Close()); err != nil {
		return fmt.Errorf("unlock %s: %w", d.path, err)
	}
	return nil
}
