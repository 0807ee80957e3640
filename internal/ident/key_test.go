package ident_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
)

func someKey() ident.Key {
	k := ident.Key{ID: id.FromBytes("key", [16]byte{1, 2, 3, 15: 9})}
	for i := range k.Secret {
		k.Secret[i] = byte(200 - i)
		k.RootSPKI[i] = byte(i)
	}
	return k
}

func TestKeyTextRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want ident.Key
		var raw [16]byte
		copy(raw[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		copy(want.Secret[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret"))
		copy(want.RootSPKI[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "root"))
		want.ID = id.FromBytes("key", raw)
		text := want.String()
		got, err := ident.ParseKey(" " + text + "\n")
		if err != nil {
			t.Fatalf("ParseKey: %v", err)
		}
		if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
			t.Fatal(diff)
		}
		if got.String() != text {
			t.Fatal("a key has two spellings")
		}
		secret, err := ident.ParseSecret(got.SecretText())
		if err != nil || secret != want.Secret {
			t.Fatalf("the secret alone: %v, equal %v", err, secret == want.Secret)
		}
	})
}

// plain lets cmp see what Key hides from printing.
func plain(k ident.Key) [3]any { return [3]any{k.ID, k.Secret, k.RootSPKI} }

func TestParseKeyRefusals(t *testing.T) {
	t.Parallel()
	good := someKey().String()
	tests := map[string]struct{ text, want string }{
		"empty":           {" \n", "empty; create one with: telford keys create"},
		"other prefix":    {"tlx_" + good[4:], `does not begin with "tlf_"`},
		"upper prefix":    {"TLF_" + good[4:], `does not begin with "tlf_"`},
		"prefix only":     {"tlf_", fmt.Sprintf("truncated: 4 of %d", len(good))},
		"one char short":  {good[:len(good)-1], fmt.Sprintf("truncated: %d of %d characters", len(good)-1, len(good))},
		"half":            {good[:len(good)/2], "truncated"},
		"one char long":   {good + "A", fmt.Sprintf("too long: %d characters instead of %d", len(good)+1, len(good))},
		"twice":           {good + good, "too long"},
		"bad character":   {good[:50] + "!" + good[51:], "not base64url at character 51"},
		"standard base64": {good[:20] + "/" + good[21:], "not base64url at character 21"},
		"newline inside":  {good[:50] + "\n" + good[51:], "base64url"},
		"loose last bits": {good[:len(good)-1] + "_", "not base64url"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ident.ParseKey(test.text)
			if err == nil {
				t.Fatalf("ParseKey took it as %v", k)
			}
			if errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want invalid_argument with %q", err, test.want)
			}
			for i := 0; i+12 <= len(test.text); i++ {
				if part := test.text[i : i+12]; i >= 4 && strings.Contains(err.Error(), part) {
					t.Fatalf("the error quotes the key: %q", err)
				}
			}
		})
	}
}

func TestKeyWithoutAnIDHasNoText(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "key_", "in_" + strings.Repeat("0", 26), "key_" + strings.Repeat("z", 26)} {
		k := someKey()
		k.ID = bad
		if text := k.String(); text != "" {
			t.Errorf("id %q: text %q, want none", bad, text)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	k := someKey()
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10.3v"} {
		for _, v := range []any{k, &k, struct{ K ident.Key }{k}, []ident.Key{k}, map[string]*ident.Key{"k": &k}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	hidden := struct{ k *ident.Key }{&k} // fmt does not ask unexported fields how to print them
	fmt.Fprintf(&out, "%v %+v %#v %v %+v", hidden, hidden, hidden, &hidden, &hidden)
	fmt.Fprintln(&out, k, &k)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("key", "key", k, "pointer", &k, "list", []ident.Key{k}, "in", struct{ K ident.Key }{k})
	}
	for _, v := range []any{k, &k, struct{ K ident.Key }{k}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	fmt.Fprintf(&out, "%v", fmt.Errorf("use %v: %w", k, errs.New(errs.Internal, "key %v", k)))
	for name, secret := range map[string]string{
		"text": k.String()[30:60], "base64": k.SecretText()[:20], "std": base64.StdEncoding.EncodeToString(k.Secret[:])[:20],
		"hex": hex.EncodeToString(k.Secret[:8]), "HEX": strings.ToUpper(hex.EncodeToString(k.Secret[:8])),
		"decimal": "200 199 198", "go": "0xc8, 0xc7",
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the secret is printed as %s", name)
		}
	}
	if !strings.Contains(out.String(), k.ID) {
		t.Error("the id is not printed")
	}
}

func FuzzParseKey(f *testing.F) {
	good := someKey().String()
	f.Add(good)
	f.Add(good[:40])
	f.Add("tlf_" + strings.Repeat("=", 107))
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ident.ParseKey(text)
		if err != nil {
			if errs.CodeOf(err) != errs.InvalidArgument {
				t.Fatalf("code %s: %v", errs.CodeOf(err), err)
			}
			return
		}
		if k.String() != strings.TrimSpace(text) {
			t.Fatalf("%q is read as another key", text)
		}
	})
}
