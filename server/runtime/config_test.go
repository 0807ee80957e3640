package runtime_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/runtime"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cfg  runtime.Config
		keys []string // of the problems, in their order
		says string
	}{
		{"the zero value", runtime.Config{}, nil, ""},
		{"dev", runtime.Config{Dev: true}, nil, ""},
		{"doors that are not there, off", runtime.Config{IPC: "off", Bus: "off", BusInsecure: "off"}, nil, ""},
		{"plain HTTP on loopback", runtime.Config{HTTP: "127.0.0.1:0", HTTPPlain: "on"}, nil, ""},
		{"plain HTTP behind a proxy", runtime.Config{HTTPPlain: "proxy"}, nil, ""},
		{"plain HTTP for everybody", runtime.Config{HTTPPlain: "on"}, []string{"http-plain"}, "proxy"},
		{"plain HTTP by a wrong word", runtime.Config{HTTPPlain: "maybe"}, []string{"http-plain"}, `"maybe"`},
		{"dev for everybody", runtime.Config{Dev: true, GRPC: "0.0.0.0:14445", HTTP: ":14444"}, []string{"grpc", "http"}, "loopback"},
		{"doors of another build", runtime.Config{IPC: "/run/x.sock", Bus: ":9900", BusInsecure: ":9966"}, []string{"ipc", "bus", "bus-insecure"}, "off"},
		{"dev with a certificate of one's own", runtime.Config{Dev: true, HTTPCert: "/none/a.pem", HTTPKey: "/none/b.pem"}, []string{"http-cert"}, "/none/a.pem"},
		{"plain HTTP with a certificate", runtime.Config{HTTPPlain: "proxy", HTTPCert: "/none/a.pem", HTTPKey: "/none/b.pem"}, []string{"http-cert", "http-plain"}, "exclude"},
		{"no door", runtime.Config{GRPC: "off", HTTP: "off"}, []string{"grpc"}, "off"},
		{"one door", runtime.Config{GRPC: "off"}, nil, ""},
		{"not an address", runtime.Config{GRPC: "14445", HTTP: "127.0.0.1:http!"}, []string{"grpc", "http"}, "HOST:PORT"},
		{"a port too high", runtime.Config{HTTP: "127.0.0.1:70000"}, []string{"http"}, "70000"},
		{"half a certificate", runtime.Config{HTTPCert: "a.pem"}, []string{"http-cert"}, "http-key"},
		{"a certificate that is not there", runtime.Config{HTTPCert: "/none/a.pem", HTTPKey: "/none/b.pem"}, []string{"http-cert"}, "/none/a.pem"},
		{"PostgreSQL without a secret", runtime.Config{Database: "postgres://u@h/d"}, []string{"database"}, "TELFORD_CLUSTER_SECRET"},
		{"PostgreSQL with a short secret", runtime.Config{Database: "postgres://u@h/d", ClusterSecret: "short"}, []string{"TELFORD_CLUSTER_SECRET"}, "16"},
		{"another database", runtime.Config{Database: "mysql://h/d"}, []string{"database"}, `"mysql"`},
		{"names", runtime.Config{Zone: "Zürich", TrustDomain: "-", Advertise: "a b, https://x"}, []string{"zone", "trust-domain", "advertise", "advertise"}, "Zürich"},
		{"spans", runtime.Config{LeafLife: time.Second, DrainTimeout: -1}, []string{"leaf-life", "drain-timeout"}, "1s"},
		{"lives", runtime.Config{LeafLife: 48 * time.Hour, IssuerLife: 24 * time.Hour, RootLife: time.Hour}, []string{"issuer-life", "root-life"}, "24h0m0s is less than the 48h0m0s of leaf-life"},
		{"logs", runtime.Config{LogLevel: "loud", LogFormat: "xml"}, []string{"log-level", "log-format"}, `"loud"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.cfg.Validate()
			var keys []string
			var bad *runtime.ConfigError
			if errors.As(err, &bad) {
				for _, p := range bad.Problems {
					keys = append(keys, p.Key)
				}
			}
			if diff := cmp.Diff(c.keys, keys); diff != "" {
				t.Errorf("problems (-want +got):\n%s\n%v", diff, err)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if _, e := runtime.New(c.cfg); (e == nil) != (err == nil) {
				t.Errorf("New says %v, Validate %v", e, err)
			}
		})
	}
}

func TestSettingsReadBackWhatTheyPrint(t *testing.T) {
	t.Parallel()
	want := runtime.Config{Dev: true, Data: "/d", LeafLife: 20 * time.Second, Zone: "north", HTTPPlain: "proxy", Advertise: "a,b"}
	effective := want.Effective()
	var got runtime.Config
	for _, s := range runtime.Settings() {
		if err := s.Set(&got, effective[s.Name]); err != nil {
			t.Errorf("%s=%q: %v", s.Name, effective[s.Name], err)
		}
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, line := range []string{"dev: \"true\"\n", "leaf-life: \"20s\"\n", "grpc: \"127.0.0.1:14445\"\n", "bus: \"off\"\n"} {
		if !strings.Contains(want.String(), line) {
			t.Errorf("%q is missing in\n%s", line, want)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2hunter2"
	for _, url := range []string{"postgres://u:" + secret + "@h/d", "postgres://h/d?user=u&password=" + secret, "postgres://u:%zz" + secret + "@h/d"} {
		cfg := runtime.Config{Database: url, ClusterSecret: secret}
		if text := cfg.String(); strings.Contains(text, secret) {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestEnvironmentNames(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, s := range runtime.Settings() {
		names[s.Name] = s.Env()
	}
	for name, want := range map[string]string{"data": "TELFORD_DATA", "grpc": "TELFORD_SERVE_GRPC", "bus-insecure": "TELFORD_SERVE_BUS_INSECURE"} {
		if names[name] != want {
			t.Errorf("%s is %s, want %s", name, names[name], want)
		}
	}
}
