use super::*;

const A: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(kind: &str) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{A}","size":7}}"#)
}

#[test]
fn an_index_is_read_leniently() {
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{{"digest":"nonsense"}},7,
        {{"mediaType":null,"digest":"{A}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":null,"os.features":["x"]}},
          "annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}},
        {{"digest":"{A}","platform":{{}}}}],"annotations":null}}"#,
        descriptor(OCI_MANIFEST)
    );
    let index = parse_index(text.as_bytes()).unwrap();
    assert_eq!(index.manifests.len(), 3);
    assert!(index.manifests[0].is_manifest() && !index.manifests[0].is_attestation());
    assert!(index.manifests[1].is_attestation());
    assert_eq!(index.manifests[2].platform, None);
    assert!(looks_like_index(text.as_bytes()));
}

#[test]
fn a_manifest_tells_what_it_is() {
    let manifest = |config: &str, layer: &str| {
        let text = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptor(config), descriptor(layer));
        parse_manifest(text.as_bytes()).unwrap().kind
    };
    assert_eq!(manifest(OCI_CONFIG, "x"), ManifestKind::Image);
    assert_eq!(manifest(DOCKER_CONFIG, "x"), ManifestKind::Image);
    assert_eq!(manifest(OCI_CONFIG, "application/vnd.in-toto+json"), ManifestKind::Attestation);
    assert_eq!(manifest("application/vnd.cncf.helm.config.v1+json", "x"), ManifestKind::Artifact);
    assert!(parse_manifest(br#"{"manifests":[],"layers":[]}"#).is_err());
    assert_eq!(parse_manifest(br#"{"fsLayers":[]}"#).unwrap_err().kind(), Kind::Unsupported);
    assert!(parse_manifest(b"{}").is_err());
    assert!(parse_manifest(br#"{"layers":null}"#).is_err());
}

#[test]
fn a_config_gives_layers_their_names_and_steps() {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05.5+01:00","rootfs":{{"type":"layers","diff_ids":["{A}","{A}"]}},
        "history":[{{"created_by":"ADD a","empty_layer":null}},{{"created_by":"ENV x","empty_layer":true}},{{"created_by":"RUN b"}}],
        "config":{{"Cmd":["sh"],"Entrypoint":null,"Labels":null,"Env":["A=b"],"Volumes":{{"/x":{{}}}}}}}}"#
    );
    let config = parse_config(config.as_bytes()).unwrap();
    assert_eq!(config.platform.name(), "linux/amd64");
    assert_eq!(config.cmd, ["sh"]);
    assert_eq!(config.created.unwrap(), SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_704_161_045_500));
    let text = format!(r#"{{"config":{},"layers":[{1},{1}]}}"#, descriptor(OCI_CONFIG), descriptor("x"));
    let manifest = parse_manifest(text.as_bytes()).unwrap().with_config(config);
    assert!(manifest.has_rootfs());
    assert_eq!(&*manifest.layers[1].created_by, "RUN b");
    assert_eq!(manifest.layers[0].chain_id, manifest.layers[0].diff_id);
    assert_eq!(manifest.chain_id().unwrap(), &Digest::of(format!("{A} {A}").as_bytes()));
}

#[test]
fn what_is_too_long_is_refused_before_it_is_held() {
    let layers = vec![descriptor("x"); LAYERS + 1].join(",");
    let text = format!(r#"{{"layers":[{layers}]}}"#);
    assert!(parse_manifest(text.as_bytes()).is_err());
    let numbers = format!(r#"{{"manifests":[{}]}}"#, vec!["1"; MANIFESTS + 1].join(","));
    assert!(parse_index(numbers.as_bytes()).is_err());
    let nested = format!("{}{}", r#"{"a":["#.repeat(300), "]}".repeat(300));
    assert!(parse_index(nested.as_bytes()).is_err());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        drop((parse_index(&bytes), parse_manifest(&bytes), parse_config(&bytes)));
    }
}
