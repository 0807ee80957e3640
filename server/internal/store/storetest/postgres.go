package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The server is shared by all tests of the process: starting one takes seconds.
var (
	shared     = sync.OnceValues(func() (*Server, error) { return startServer() })
	databases  atomic.Int64
	onPostgres atomic.Int64
)

// Postgres returns the URL of a new, empty database on a PostgreSQL of the test
// process's own, which syncs like a real one. Where no PostgreSQL is installed it skips
// the test, or fails it when CI=true.
func Postgres(t testing.TB) (databaseURL string) {
	t.Helper()
	s, err := shared()
	if err != nil {
		missing(t, err)
	}
	onPostgres.Add(1)
	return s.Database(t)
}

// OnPostgres is how many databases the tests of this process have asked for.
func OnPostgres() int64 { return onPostgres.Load() }

func missing(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errNotInstalled) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	t.Fatal(err)
}

var errNotInstalled = errors.New("no PostgreSQL found: install it (Debian and Ubuntu: apt-get install postgresql; " +
	"Fedora: dnf install postgresql-server; macOS: brew install postgresql@17), or put initdb and postgres into PATH")

// Server is a PostgreSQL that belongs to one test process.
type Server struct {
	bin  string
	dir  string
	args []string
	cred *syscall.SysProcAttr

	cmd   *exec.Cmd
	alive *os.File // the keeper's standard input: its end is the server's end
}

// NewServer starts a server for one test alone, with settings added (name=value), to
// be killed and started again.
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := startServer(settings...)
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(s.Remove)
	return s
}

func startServer(settings ...string) (s *Server, err error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "telford-pg-")
	if err != nil {
		return nil, err
	}
	s = &Server{bin: bin, dir: dir, args: settings}
	defer func() {
		if err != nil {
			s.Remove()
		}
	}()
	if s.cred, err = serverUser(dir); err != nil {
		return nil, err
	}
	// The files of an empty database need no sync; those of the server that runs do.
	initdb := exec.CommandContext(context.Background(), filepath.Join(bin, "initdb"), "--no-sync", "--auth=trust", "--username=telford",
		"--encoding=UTF8", "--locale=C", "--pgdata="+filepath.Join(dir, "data"))
	initdb.SysProcAttr, initdb.Dir = s.cred, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, s.Start()
}

// findPostgres returns the directory that has both initdb and postgres.
func findPostgres() (string, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(installed, func(a, b string) int { return versionOf(b) - versionOf(a) })
	for _, dir := range append(dirs, installed...) {
		_, err1 := os.Stat(filepath.Join(dir, "initdb"))
		_, err2 := os.Stat(filepath.Join(dir, "postgres"))
		if err1 == nil && err2 == nil {
			return dir, nil
		}
	}
	return "", errNotInstalled
}

func versionOf(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// serverUser gives the directory to a user that PostgreSQL agrees to run as: not root.
func serverUser(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root and there is no user postgres or nobody")
}

// keeper runs the server until its own standard input ends, which happens when the
// test process ends, even when it is killed.
const keeper = `"$@" & pid=$!
read -r line
kill -QUIT $pid 2>/dev/null
wait $pid
[ "$line" = keep ] || rm -rf "$DIR"`

// Start starts the server and waits until it answers.
func (s *Server) Start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	args := []string{
		"-c", keeper, "keeper", filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-h", "",
		"-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "wal_level=minimal", "-c", "max_wal_senders=0",
		"-c", "autovacuum=off", "-c", "logging_collector=off",
	}
	for _, setting := range s.args {
		args = append(args, "-c", setting)
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", args...)
	cmd.Env = append(os.Environ(), "DIR="+s.dir, "LC_ALL=C")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	if s.cred != nil {
		cred := *s.cred
		cmd.SysProcAttr = &cred
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // an interrupt from the keyboard is for the tests
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdin = r
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start PostgreSQL: %w", err), w.Close())
	}
	s.cmd, s.alive = cmd, w
	return s.ready()
}

// ready waits until the server takes connections.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.exec(ctx, "select 1")
		if err == nil {
			return nil
		}
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		select {
		case <-tick.C:
			if !strings.Contains(string(text), "database system is shut down") {
				continue
			}
			return fmt.Errorf("PostgreSQL did not start:\n%s", text)
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, text)
		}
	}
}

// URL is the address of one database.
func (s *Server) URL(name string) string {
	return "postgres://telford@/" + name + "?host=" + url.QueryEscape(s.dir)
}

// Database makes a new, empty database, dropped with the test, and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	if err := s.exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A server that the test has killed has nothing to drop.
		_ = s.exec(context.WithoutCancel(t.Context()), "drop database if exists "+name+" with (force)")
	})
	return s.URL(name)
}

func (s *Server) exec(ctx context.Context, query string) error {
	c, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if _, err := c.Exec(ctx, query); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

// Kill ends every process of the server at once, as kill -9 does, and keeps its files.
// Start starts it again.
func (s *Server) Kill() error {
	postmaster, err := s.postmaster()
	if err != nil {
		return err
	}
	children, err := exec.CommandContext(context.Background(), "pgrep", "-P", strconv.Itoa(postmaster)).Output()
	if err != nil {
		return fmt.Errorf("list the processes of PostgreSQL: %w", err)
	}
	pids := []int{postmaster}
	for _, text := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	s.stop("keep\n")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(pids, running) {
		<-tick.C
	}
	return nil
}

// running says whether a process is more than an entry that nobody has asked for.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// Remove ends the server and removes its files. Removing it again does nothing.
func (s *Server) Remove() {
	s.stop("\n")
	_ = os.RemoveAll(s.dir)
}

func (s *Server) stop(line string) {
	if s.cmd == nil {
		return
	}
	_, _ = s.alive.WriteString(line)
	_ = s.alive.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// postmaster is the process id of the server.
func (s *Server) postmaster() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}
