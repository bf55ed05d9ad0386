//! An SSH agent of our own (draft-miller-ssh-agent): it offers what a test says and signs with what a test says, so that a
//! stock `ssh` shows keys that live in no file here, such as security keys.

use sha2::{Digest as _, Sha256};
use ssh_key::{HashAlg, PrivateKey, PublicKey, public::KeyData};
use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// What is offered, and what signs for it.
#[derive(Debug, Clone)]
pub struct Held {
    /// The public key or certificate, in wire form.
    pub shown: Vec<u8>,
    /// The private key.
    pub signer: PrivateKey,
    /// For a security key: its application. The signature then says that somebody touched it, or not.
    pub security_key: Option<(String, bool)>,
}

impl Held {
    /// A plain key.
    pub fn plain(signer: &PrivateKey) -> Self {
        Self { shown: signer.public_key().to_bytes().unwrap(), signer: signer.clone(), security_key: None }
    }

    /// The same key as if it lived in a security key; its public part as a line of a `.pub` file.
    pub fn in_security_key(signer: &PrivateKey, touched: bool) -> (Self, String) {
        const APPLICATION: &str = "ssh:";
        let data = match signer.public_key().key_data() {
            KeyData::Ed25519(key) => KeyData::SkEd25519(ssh_key::public::SkEd25519::new(*key, APPLICATION.to_owned())),
            KeyData::Ecdsa(ssh_key::public::EcdsaPublicKey::NistP256(point)) => {
                let key = ssh_key::public::SkEcdsaSha2NistP256::new(*point, APPLICATION.to_owned());
                KeyData::SkEcdsaSha2NistP256(key)
            }
            other => panic!("no security key has {other:?}"),
        };
        let public = PublicKey::from(data);
        let security_key = Some((APPLICATION.to_owned(), touched));
        (Self { shown: public.to_bytes().unwrap(), signer: signer.clone(), security_key }, public.to_openssh().unwrap())
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let Some((application, touched)) = &self.security_key else {
            let (name, raw) = signed(&self.signer, message);
            return [string(name.as_bytes()), string(&raw)].concat();
        };
        // OpenSSH PROTOCOL.u2f: the hash of the application, flags, a counter, the hash of the message.
        let trailer = [&[u8::from(*touched)][..], &7_u32.to_be_bytes()].concat();
        let hashed = [&Sha256::digest(application)[..], &trailer, &Sha256::digest(message)].concat();
        let (name, raw) = signed(&self.signer, &hashed);
        let name =
            if name == "ssh-ed25519" { "sk-ssh-ed25519@openssh.com" } else { "sk-ecdsa-sha2-nistp256@openssh.com" };
        [string(name.as_bytes()), string(&raw), trailer].concat()
    }
}

fn signed(key: &PrivateKey, message: &[u8]) -> (String, Vec<u8>) {
    let signature = russh::keys::signature::Signer::try_sign(key, message).expect("it signs");
    let signature: ssh_key::Signature = signature;
    assert!(!matches!(signature.algorithm(), ssh_key::Algorithm::Rsa { hash: Some(HashAlg::Sha256) | None }));
    (signature.algorithm().to_string(), signature.as_bytes().to_vec())
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A listening agent. Its thread ends with the test process.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// Listens in this folder.
    pub fn start(folder: &Path, held: Vec<Held>) -> Self {
        let socket = folder.join(format!("agent-{}", held.len()));
        let listener = UnixListener::bind(&socket).expect("a socket for the agent");
        let held = Arc::new(held);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let held = held.clone();
                thread::spawn(move || serve(stream, &held));
            }
        });
        Self { socket }
    }

    /// For `SSH_AUTH_SOCK`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// For `ssh -o`.
    pub fn option(&self) -> String {
        format!("IdentityAgent={}", self.socket.display())
    }
}

fn serve(mut stream: UnixStream, held: &[Held]) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut request).is_err() || stream.write_all(&string(&answer(&request, held))).is_err() {
            return;
        }
    }
}

fn answer(request: &[u8], held: &[Held]) -> Vec<u8> {
    const FAILURE: u8 = 5;
    match request.split_first() {
        // SSH_AGENTC_REQUEST_IDENTITIES
        Some((11, _)) => {
            let mut answer = [&[12][..], &u32::try_from(held.len()).unwrap().to_be_bytes()].concat();
            for held in held {
                answer.extend([string(&held.shown), string(b"a test")].concat());
            }
            answer
        }
        // SSH_AGENTC_SIGN_REQUEST: key, data, flags
        Some((13, rest)) => {
            let take = |bytes: &[u8]| {
                let (length, rest) = bytes.split_at(4);
                let (taken, rest) = rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize);
                (taken.to_vec(), rest.to_vec())
            };
            let (key, rest) = take(rest);
            let (message, _flags) = take(&rest);
            match held.iter().find(|held| held.shown == key) {
                Some(held) => [&[14][..], &string(&held.sign(&message))].concat(),
                None => vec![FAILURE],
            }
        }
        _ => vec![FAILURE],
    }
}
