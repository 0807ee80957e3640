package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"telford.dev/telford/server/runtime"
)

const (
	envPrefix = "TELFORD_SERVE_"
	envConfig = "TELFORD_SERVE_CONFIG"
	envSecret = "TELFORD_CLUSTER_SECRET"
)

// values is a layer of settings that was read already.
type values map[string]any

// Read implements koanf.Provider.
func (v values) Read() (map[string]any, error) { return v, nil }

// ReadBytes implements koanf.Provider; layers of values have no bytes.
func (v values) ReadBytes() ([]byte, error) { return nil, errors.New("not a file") }

// loadConfig merges flags over environment over file, and returns every mistake of all
// three at once.
func (a *app) loadConfig(flags *pflag.FlagSet) (runtime.Config, error) {
	var cfg runtime.Config
	bad := &runtime.ConfigError{}
	k := koanf.New(".")
	origin := make(map[string]string) // how the value of a setting was given

	path, _ := flags.GetString("config")
	if path == "" {
		path = a.getenv(envConfig)
	}
	if path != "" {
		from := koanf.New(".")
		if err := from.Load(file.Provider(path), yaml.Parser()); err != nil {
			hint := ""
			if _, unreadable := errors.AsType[*fs.PathError](err); !unreadable {
				hint = "\nWant one setting a line, such as zone: eu-1"
			}
			return cfg, usagef("read the configuration %s: %w%s", path, err, hint)
		}
		layer := values{}
		for name, v := range from.Raw() {
			origin[name] = path + ": " + name
			layer[name] = v
		}
		if err := k.Load(layer, nil); err != nil {
			return cfg, err
		}
	}
	if err := k.Load(a.fromEnvironment(origin, bad), nil); err != nil {
		return cfg, err
	}
	layer := values{}
	for _, s := range runtime.Settings() {
		if f := flags.Lookup(s.Name); f != nil && f.Changed {
			layer[s.Name] = f.Value.String()
			origin[s.Name] = "--" + s.Name
		}
	}
	if err := k.Load(layer, nil); err != nil {
		return cfg, err
	}
	apply(k, &cfg, bad)
	cfg.ClusterSecret = a.getenv(envSecret)

	var invalid *runtime.ConfigError
	if errors.As(cfg.Validate(), &invalid) {
		bad.Problems = append(bad.Problems, invalid.Problems...)
	}
	if len(bad.Problems) == 0 {
		return cfg, nil
	}
	for i, p := range bad.Problems {
		if from := origin[p.Key]; from != "" {
			bad.Problems[i].Key = from
		}
	}
	return cfg, usageError{fmt.Errorf("the configuration has mistakes:\n%w", bad)}
}

// fromEnvironment is the layer of variables; one that no setting has is a mistake.
func (a *app) fromEnvironment(origin map[string]string, bad *runtime.ConfigError) values {
	layer := values{}
	known := []string{envConfig}
	for _, s := range runtime.Settings() {
		known = append(known, s.Env())
		if v := a.getenv(s.Env()); v != "" {
			layer[s.Name] = v
			origin[s.Name] = s.Env()
		}
	}
	for _, pair := range a.environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) {
			bad.Problems = append(bad.Problems, runtime.Problem{Key: name, Message: "no such setting; telford serve --help lists them"})
		}
	}
	return layer
}

// apply puts the merged values into cfg.
func apply(k *koanf.Koanf, cfg *runtime.Config, bad *runtime.ConfigError) {
	settings := make(map[string]runtime.Setting)
	for _, s := range runtime.Settings() {
		settings[s.Name] = s
	}
	raw := k.Raw()
	names := make([]string, 0, len(raw))
	for name := range raw {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s, ok := settings[name]
		if !ok {
			bad.Problems = append(bad.Problems, runtime.Problem{Key: name, Message: "no such setting; telford serve --help lists them"})
			continue
		}
		var text string
		switch v := raw[name].(type) {
		case nil:
			continue
		case map[string]any, []any:
			bad.Problems = append(bad.Problems, runtime.Problem{Key: name, Message: "want one value, not a list or a map"})
			continue
		default:
			text = fmt.Sprint(v)
		}
		next := *cfg
		if err := s.Set(&next, text); err != nil {
			bad.Problems = append(bad.Problems, runtime.Problem{Key: name, Message: err.Error()})
		} else if kind := misread(raw[name], s); kind != "" {
			bad.Problems = append(bad.Problems, runtime.Problem{Key: name, Message: "want text, and to YAML this is " + kind + ", " + text + ": put it in quotes"})
		} else {
			*cfg = next
		}
	}
}

// misread names what YAML took a value for that is text, and so may have changed: 007
// is the number 7, 1.50 is 1.5. It is empty where nothing was lost.
func misread(v any, s runtime.Setting) string {
	switch v.(type) {
	case string:
		return ""
	case bool:
		if s.Bool || s.Bare != "" {
			return ""
		}
		return "a truth value"
	case time.Time:
		return "a date"
	default:
		return "a number"
	}
}

// settingFlags adds a flag for each setting of the runtime.
func settingFlags(f *pflag.FlagSet) {
	for _, s := range runtime.Settings() {
		v := &setting{kind: "string"}
		flag := f.VarPF(v, s.Name, "", s.Usage+" ("+s.Env()+")")
		flag.NoOptDefVal = s.Bare
		if s.Bool {
			v.kind, flag.NoOptDefVal = "bool", "true"
		}
	}
	f.String("config", "", "YAML file with settings by these names; flags and environment go before it ("+envConfig+")")
	f.Bool("print-config", false, "print the settings in force and exit")
}
