//! The files in docs/deploy are valid, fit each other, and serve in the files of a pod.

use crate::kit::dir::Dir;
use crate::kit::packages::installed;
use crate::kit::postgres::Postgres;
use crate::kit::proxies::Kind;
use std::path::PathBuf;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

#[track_caller]
fn passes((scripts, folder): &(PathBuf, PathBuf), script: &str, arguments: &[&str]) {
    let mut command = Command::new(folder.join("venv/bin/python"));
    let command = command.arg(scripts.join(script)).arg(BINARY).args(arguments);
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("Python was installed");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{script}: {text}");
}

#[test]
fn the_files_are_valid_and_fit_each_other() {
    let installed = installed("deploy");
    passes(&installed, "files.py", &[installed.1.to_str().unwrap()]);
}

#[test]
fn the_chart_serves_in_the_files_of_a_pod() {
    let installed = installed("deploy");
    let postgres = Postgres::shared();
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    postgres.sql(database, "CREATE ROLE pod LOGIN PASSWORD 'pod'");
    postgres.sql(database, &format!("ALTER DATABASE {database} OWNER TO pod"));
    let port = postgres.port();
    let authority = "/etc/portcullis-secrets/store/ca.crt";
    let store = format!("postgres://pod:pod@localhost:{port}/{database}?sslrootcert={authority}");
    let dir = Dir::new();
    dir.write("ca.crt", postgres.certificate());
    let certificate = dir.path().join("ca.crt");
    passes(&installed, "pod.py", &[&store, certificate.to_str().unwrap()]);
}

#[test]
fn envoy_with_the_lists_of_the_recipes_forwards_no_claim_of_a_client() {
    let installed = installed("deploy");
    passes(&installed, "envoy.py", &[Kind::Envoy.program().to_str().unwrap()]);
}
