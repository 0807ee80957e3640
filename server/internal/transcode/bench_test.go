package transcode_test

import (
	"testing"

	"telford.dev/telford/internal/message"
)

func BenchmarkTranscode(b *testing.B) {
	body := []byte(`{"order_id":"o-1","amount_cents":"1299","token":"AAECAwQFBgc=","items":[{"another_rather_long_name":"x"},{}],"rate":0.5}`)
	m := method(b)
	b.Run("same", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Request(message.Proto, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json-proto", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Request(message.JSON, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json-msgpack", func(b *testing.B) {
		m := method(b, takes("msgpack"))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.Request(message.JSON, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
