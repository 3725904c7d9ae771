// node typage.mjs COMMAND OPTIONS < INPUT > OUTPUT: age-encryption for tests/age_tools/typage.py. OPTIONS is JSON.
import { readFileSync, writeFileSync } from "node:fs"
import { Decrypter, Encrypter, generateHybridIdentity, generateX25519Identity, identityToRecipient } from "age-encryption"

const commands = {
    async encrypt({ recipients, passphrase, workFactor }) {
        const encrypter = new Encrypter()
        recipients.forEach((recipient) => encrypter.addRecipient(recipient))
        if (passphrase !== null) encrypter.setPassphrase(passphrase)
        if (workFactor !== null) encrypter.setScryptWorkFactor(workFactor)
        return encrypter.encrypt(readFileSync(0))
    },
    async decrypt({ identities, passphrase }) {
        const decrypter = new Decrypter()
        identities.forEach((identity) => decrypter.addIdentity(identity))
        if (passphrase !== null) decrypter.addPassphrase(passphrase)
        return decrypter.decrypt(readFileSync(0))
    },
    async generate({ postQuantum }) {
        return postQuantum ? generateHybridIdentity() : generateX25519Identity()
    },
    async recipient({ identity }) {
        return identityToRecipient(identity)
    },
}

const [command, options] = process.argv.slice(2)
try {
    writeFileSync(1, await commands[command](JSON.parse(options)))
} catch (error) {
    writeFileSync(2, error.message)
    process.exit(1)
}
