package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"telford.dev/telford/internal/ident"
	"telford.dev/telford/registry/rest"
)

// wrapFlags say what a wrapped process is registered as.
type wrapFlags struct {
	id       string
	tags     []string
	metadata []string
	interval int
	abort    bool
	key      string
}

func (a *app) wrapCommand() *cobra.Command {
	var f wrapFlags
	c := &cobra.Command{
		Use:   "wrap --id ID [flags] [--] CMD [ARG…]",
		Short: "Run a program and keep it registered while it runs",
		Long: "Run a program and keep it registered while it runs, by the REST registry. Flags end at the\n" +
			"first word that is none, or at --; what follows is the program and its arguments.\n\n" +
			"The program has the input and the outputs of telford wrap, gets the signals sent to it, and is\n" +
			"killed when telford wrap is. When it ends, the service is removed with the metadata exit_status,\n" +
			"which the feed shows, and telford wrap ends with the program's status, 128 and the number of\n" +
			"the signal when one ended it. Without --abort-on-failure the program runs whether it can be\n" +
			"registered or not, and registration is tried until it succeeds; with it, a registration that\n" +
			"fails at the start is status 100 and the program is not started.\n\n" +
			"The name of the service is the metadata service, or the id. A service key registers its own\n" +
			"service only.",
		Example: "  export TELFORD_KEY=$(telford keys create --service api)\n" +
			"  telford wrap --id my-host1-api0 --tags www --metadata service=api,port=8000,host=localhost --interval 20 \\\n" +
			"    /opt/my-app/bin/api --port=8000",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			service, err := f.service()
			if err != nil {
				return err
			}
			path, err := exec.LookPath(given[0])
			if err != nil {
				return notRunnable(given[0], err)
			}
			registry, err := a.registry(f.key)
			if err != nil {
				return err
			}
			defer registry.Close()
			w := &wrapper{app: a, registry: registry, service: service, abort: f.abort}
			return w.run(c.Context(), path, given)
		},
	}
	fl := c.Flags()
	fl.SetInterspersed(false)
	fl.StringVar(&f.id, "id", "", "id of the service: 3 to 65 letters, digits, '_', '-' or '.'")
	fl.StringArrayVarP(&f.tags, "tags", "t", nil, "tags, separated by commas: at most 10")
	fl.StringArrayVarP(&f.metadata, "metadata", "m", nil, "metadata KEY=VALUE, separated by commas: at most 20")
	fl.IntVarP(&f.interval, "interval", "i", 30, "seconds without a heartbeat after which the service is gone, 3 to 120; heartbeats come more often")
	fl.BoolVar(&f.abort, "abort-on-failure", false, "end with status 100 when the registration fails at the start")
	fl.StringVar(&f.key, "key", "", "service key, or ID:SECRET of an api key (TELFORD_KEY; default: dev.key of --data)")
	fl.StringVar(&a.global.server, "server", a.getenv("TELFORD_HTTP"), "HTTP address of the runtime (TELFORD_HTTP, TELFORD_SERVER)")
	fl.StringVar(&a.global.data, "data", a.dataDefault(), "data directory of a runtime on this host (TELFORD_DATA)")
	fl.StringVar(&a.global.ca, "ca", "", "PEM file with the root that signs the runtime's certificate (default: ca.crt of --data)")
	return alone(c)
}

// notRunnable is the failure to run a program, with the statuses of a shell.
func notRunnable(name string, err error) error {
	status := 127
	if errors.Is(err, fs.ErrPermission) {
		status = 126
	}
	return &exitStatus{status, fmt.Errorf("run %s: %w", name, err)}
}

// serviceID is the API's own rule.
var serviceID = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,65}$`)

// service reads the flags; a mistake is found before anything is started.
func (f *wrapFlags) service() (rest.Service, error) {
	s := rest.Service{ID: f.id, HeartbeatTimeout: time.Duration(f.interval) * time.Second}
	if f.id == "" {
		return s, usagef("wrap: say what the program is registered as: --id ID")
	}
	if !serviceID.MatchString(f.id) {
		return s, usagef("--id: %q is not 3 to 65 letters, digits, '_', '-' or '.'", f.id)
	}
	if s.HeartbeatTimeout < rest.MinHeartbeatTimeout || s.HeartbeatTimeout > rest.MaxHeartbeatTimeout {
		return s, usagef("--interval: %d is outside 3 to 120 seconds", f.interval)
	}
	for _, tag := range items(f.tags) {
		if !within(tag, 55) {
			return s, usagef("--tags: %q is not 1 to 55 characters", tag)
		}
		s.Tags = append(s.Tags, tag)
	}
	if len(s.Tags) > rest.MaxTags {
		return s, usagef("--tags: %d tags are more than %d", len(s.Tags), rest.MaxTags)
	}
	s.Metadata = make(map[string]string)
	for _, pair := range items(f.metadata) {
		key, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok:
			return s, usagef("--metadata: %q is not KEY=VALUE", pair)
		case !within(key, 255) || !within(value, 255):
			return s, usagef("--metadata: key and value of %q are not of 1 to 255 characters each", pair)
		}
		if _, twice := s.Metadata[key]; twice {
			return s, usagef("--metadata: %q is given twice", key)
		}
		s.Metadata[key] = value
	}
	if len(s.Metadata) > rest.MaxMetadata {
		return s, usagef("--metadata: %d entries are more than %d", len(s.Metadata), rest.MaxMetadata)
	}
	return s, nil
}

// items splits the values of a flag at their commas.
func items(given []string) []string {
	var out []string
	for _, text := range given {
		if text != "" {
			out = append(out, strings.Split(text, ",")...)
		}
	}
	return out
}

// within reports whether text has 1 to most characters as the API counts them.
func within(text string, most int) bool {
	n := len(utf16.Encode([]rune(text)))
	return n >= 1 && n <= most
}

// registry returns a client of the REST registry of the runtime.
func (a *app) registry(key string) (*rest.Client, error) {
	user, secret, err := a.registryKey(key)
	if err != nil {
		return nil, err
	}
	if a.global.server == "" {
		// The variable names the port of links for services in Go. A runtime on this host
		// says by itself where its HTTP address is.
		if env := a.getenv("TELFORD_SERVER"); strings.Contains(env, "://") || a.client().published() == "" {
			a.global.server = env
		}
	}
	h, base, err := a.client().httpClient()
	if err != nil {
		return nil, err
	}
	return rest.New(base, rest.WithAPIKey(user, secret), rest.WithHTTPClient(h))
}

// registryKey is the user name and the API key that a key stands for.
func (a *app) registryKey(text string) (user, secret string, err error) {
	if text == "" {
		text = a.getenv("TELFORD_KEY")
	}
	if text == "" {
		path := filepath.Join(a.global.data, "dev.key")
		held, err := os.ReadFile(path)
		if err != nil {
			return "", "", usagef("no key: %w\nGive --key or TELFORD_KEY; telford keys create --service NAME makes one", err)
		}
		text = string(held)
	}
	text = strings.TrimSpace(text)
	if user, secret, ok := strings.Cut(text, ":"); ok && user != "" && secret != "" {
		return user, secret, nil
	}
	key, err := ident.ParseKey(text)
	if err != nil {
		return "", "", usagef("--key: neither a service key nor ID:SECRET: %w", err)
	}
	return key.ID, key.SecretText(), nil
}
